import type { DesiredPower } from '@berth/contract/instances/states.ts'
import type { Problem } from '@berth/contract/problem.ts'
import type { Answer, Sent } from './api.ts'
import { ServerGone } from './server-process.ts'
import type { World } from './world.ts'

/** The server said no. */
export class Refused extends Error {
  readonly code: string

  constructor(sent: Sent, answer: Answer) {
    const { code, detail }: Problem = JSON.parse(answer.text)
    super(`${sent.method} ${sent.path} was answered with ${answer.status} ${code}: ${detail}`)
    this.code = code
  }
}

/**
 * Send a request and give its answer. Throws Refused, and ServerGone when the connection broke; with `lost` that happens
 * when the answer was on its way.
 */
export async function send(world: World, sent: Sent, lost = false): Promise<Answer> {
  return taken(sent, await world.server.request(sent), lost)
}

/** The same for a request whose answer may wait for a change. */
export async function sendAndWait(world: World, sent: Sent): Promise<Answer> {
  return taken(sent, await world.server.waitingRequest(sent), false)
}

function taken(sent: Sent, answer: Answer, lost: boolean): Answer {
  if (lost) throw new ServerGone('the connection was reset')
  if (answer.status >= 400) throw new Refused(sent, answer)
  return answer
}

/** A tombstone that has expired is not found any more. */
export function isMissing(world: World, id: string, error: unknown): boolean {
  return error instanceof Refused && error.code === 'not_found' && world.server.stored.instance(id) === null
}

/** What is wanted of an instance at the moments at which a call may be looked at: when it is made, and when asked later. */
export function wantedOf(world: World, id: string): () => (DesiredPower | undefined)[] {
  const stored = () => world.server.stored.instance(id)?.desired
  const before = stored()
  return () => [before, world.promises.instances.get(id)?.desired, ...world.promises.askedOf(id), stored()]
}

/** Note an answer that must not be. */
export function note(world: World, what: string, error: unknown): void {
  world.violation(`${what} was answered with ${error instanceof Error ? error.stack : error}`)
}
