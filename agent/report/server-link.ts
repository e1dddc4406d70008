import {
  type ConsoleChunk,
  ConsolePositions,
  Desired,
  desiredHoldMs,
  type Observed,
} from '@berth/contract/hosts/agent-protocol.ts'
import { Compile } from 'typebox/compile'
import { ConsolePosts } from '../console/posts.ts'
import { pause, type Timers } from '../sys/timers.ts'

/** The server answered with an error status. */
export class ServerRefusal extends Error {
  readonly status: number

  constructor(status: number, path: string, body: string) {
    super(`${path} was answered with ${status}: ${body.slice(0, 500)}`)
    this.name = 'ServerRefusal'
    this.status = status
  }
}

/** The agent's calls to its server; every one has a deadline and is safe to repeat. */
export interface Link {
  /** What this host should have, once it is another than `since`; null when nothing changed for a while. */
  desired(since: number): Promise<Desired | null>
  report(observed: Observed): Promise<void>
  /** Hand over serial output; gives the position the server wants to have next. */
  console(instanceId: string, offset: number, data: Buffer): Promise<number>
}

/** The calls over HTTP. */
export class ServerLink implements Link {
  readonly #url: string
  readonly #credential: string
  readonly #signal: AbortSignal
  /** Compiled, as a desired state may be large and comes often. */
  readonly #desired = Compile(Desired)
  readonly #positions = Compile(ConsolePositions)
  readonly #consolePosts = new ConsolePosts((chunks) => this.#postConsole(chunks))

  constructor(url: string, credential: string, signal: AbortSignal) {
    this.#url = url
    this.#credential = credential
    this.#signal = signal
  }

  async desired(since: number): Promise<Desired | null> {
    const response = await this.#call(`/v1/agent/desired?since=${since}`, desiredHoldMs + 10_000)
    if (response.status === 204) return null
    const desired: unknown = await response.json()
    if (!this.#desired.Check(desired)) throw new Error('the desired state is of a form this agent does not know')
    return desired
  }

  async report(observed: Observed): Promise<void> {
    await this.#call('/v1/agent/observed', 15_000, observed)
  }

  console(instanceId: string, offset: number, data: Buffer): Promise<number> {
    return this.#consolePosts.add({ instance_id: instanceId, offset, data: data.toString('base64') })
  }

  async #postConsole(chunks: readonly ConsoleChunk[]): Promise<readonly (number | null)[]> {
    const response = await this.#call('/v1/agent/console-logs', 15_000, { chunks })
    const positions: unknown = await response.json()
    if (!this.#positions.Check(positions) || positions.next_offsets.length !== chunks.length) {
      throw new Error('the console positions are of an unknown form')
    }
    return positions.next_offsets
  }

  async #call(path: string, timeoutMs: number, body?: object): Promise<Response> {
    const response = await fetch(`${this.#url}${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: {
        authorization: `Bearer ${this.#credential}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.any([this.#signal, AbortSignal.timeout(timeoutMs)]),
    })
    if (response.ok) return response
    throw new ServerRefusal(response.status, path, await response.text())
  }
}

/** What a pause is made of: timers, and a number from 0 to 1 for the jitter. */
export interface Chance {
  timers: Timers
  random: () => number
}

/** Wait between attempts: doubles from 250 ms to 5 s, with jitter so that hosts do not come back all at once. */
export async function backOff(failures: number, chance: Chance, signal: AbortSignal): Promise<void> {
  const ms = Math.min(250 * 2 ** failures, 5000)
  await pause(chance.timers, ms * (0.75 + chance.random() / 2), signal)
}
