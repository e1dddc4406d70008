import { failureCatalogue } from '@berth/contract/errors.ts'
import type { WaitTarget } from '@berth/contract/instances/bounds.ts'
import { hasEnded } from '@berth/contract/operation-kinds.ts'
import type { Schemas } from '@berth/sdk/client.ts'
import { CliError, exitCodes } from '../exit-codes.ts'
import { ProgressDisplay, stepViews } from '../output/progress.ts'
import { call, callForAnswer, type Session } from '../session.ts'

type Instance = Schemas['Instance']
type Operation = Schemas['Operation']

/** A wait is made of requests of at most so many seconds, so that there is something to show; a terminal wants more. */
const sliceSeconds = { terminal: 1, log: 2 } as const

/** How long a server that was there before may be away during a wait, milliseconds: time for a restart. */
const outageMs = 30_000
const retryEveryMs = 1000

/** A wait with its end. */
export class Patience {
  readonly timeoutSeconds: number
  readonly #session: Session
  readonly #endsAt: number

  constructor(session: Session, timeoutSeconds: number) {
    this.#session = session
    this.timeoutSeconds = timeoutSeconds
    this.#endsAt = session.io.now() + timeoutSeconds * 1000
  }

  get isOver(): boolean {
    return this.#session.io.now() >= this.#endsAt
  }

  /** Whole seconds that the next request may wait; 0 asks for the present. */
  slice(): number {
    const longest = this.#session.io.stderr.isTTY ? sliceSeconds.terminal : sliceSeconds.log
    const left = Math.ceil((this.#endsAt - this.#session.io.now()) / 1000)
    return Math.max(0, Math.min(longest, left))
  }

  /** Ask, again for a while when the server cannot be reached: it may just be starting anew. */
  async ask<T>(request: () => Promise<T>, display?: ProgressDisplay): Promise<T> {
    const { io } = this.#session
    let awaySince: number | null = null
    for (;;) {
      try {
        return await request()
      } catch (error) {
        const away = error instanceof CliError && error.exitCode === exitCodes.unreachable
        if (awaySince === null && away) display?.note('the server does not answer; trying again')
        awaySince ??= io.now()
        if (!away || this.isOver || io.now() - awaySince > outageMs) throw error
        await io.pause(retryEveryMs)
      }
    }
  }
}

/** What a follower waits for besides the end of the operation. */
export type Until = 'ended' | 'ready'

/**
 * Follow an operation on an instance to its end, and to the guest's word for `ready`, with its steps on standard error.
 * Gives the instance as it is then. Throws CliError: failed with the cause, timeout.
 */
export async function followOperation(
  session: Session,
  operationId: string,
  until: Until,
  patience: Patience,
): Promise<Instance> {
  try {
    return await followSteps(session, operationId, until, patience)
  } catch (error) {
    if (!(error instanceof CliError) || error.exitCode !== exitCodes.interrupted) throw error
    throw new CliError(exitCodes.interrupted, 'interrupted; what was asked for goes on', {
      details: [`see how: berth operation show ${operationId}`],
      cause: error,
    })
  }
}

async function followSteps(session: Session, operationId: string, until: Until, patience: Patience): Promise<Instance> {
  const display = new ProgressDisplay(session.io)
  const untilReady = until === 'ready'
  for (;;) {
    const operation = await patience.ask(() => readOperation(session, operationId, patience.slice()), display)
    const instance = await patience.ask(() => readInstance(session, operation.resource_id), display)
    const image = await downloadOf(session, operation, instance)
    display.update(stepViews({ operation, instance, image, untilReady }))
    if (hasEnded(operation.status)) {
      if (operation.status !== 'succeeded') throw operationError(operation, describe(instance))
      if (!untilReady) return instance
      return waitForInstance(session, instance, 'ready', patience, (latest) =>
        display.update(stepViews({ operation, instance: latest, image: null, untilReady })),
      )
    }
    if (patience.isOver)
      throw timeoutError(instance, `${operation.type} of ${describe(instance)} has not ended`, patience)
  }
}

/** Follow an operation to its end, whatever it is about. Gives it as it ended. Throws as followOperation. */
export async function waitForOperation(session: Session, id: string, patience: Patience): Promise<Operation> {
  for (;;) {
    const operation = await patience.ask(() => readOperation(session, id, patience.slice()))
    if (operation.status === 'succeeded') return operation
    if (hasEnded(operation.status)) throw operationError(operation, operation.resource_id)
    if (patience.isOver) {
      throw new CliError(exitCodes.timeout, `${id} is ${operation.status} after ${patience.timeoutSeconds} s`, {
        details: [`see how it goes on: berth operation show ${id}`],
      })
    }
  }
}

/**
 * Wait until an instance is what it shall be; `onChange` gets each answer. Gives the instance as it is then. Throws
 * CliError: failed when it cannot come to that any more, timeout.
 */
export async function waitForInstance(
  session: Session,
  instance: Instance,
  target: WaitTarget,
  patience: Patience,
  onChange: (instance: Instance) => void = () => {},
): Promise<Instance> {
  for (;;) {
    const query = { wait_for: target, timeout: patience.slice() }
    const params = { path: { id: instance.id }, query }
    const { data: latest, response } = await patience.ask(() =>
      callForAnswer(session, session.client.GET('/v1/instances/{id}', { params })),
    )
    onChange(latest)
    const outcome = response.headers.get('berth-wait')
    if (outcome === 'reached') return latest
    if (outcome === 'impossible') throw impossibleError(latest, target)
    if (patience.isOver) throw timeoutError(latest, `${describe(latest)} is not ${target}`, patience)
  }
}

/** Name and id of an instance, for messages; just the id where that is its name. */
export function describe({ id, metadata }: { id: string; metadata: { name: string } }): string {
  return metadata.name === id ? id : `${metadata.name} (${id})`
}

async function readOperation(session: Session, id: string, wait: number): Promise<Operation> {
  return call(session, session.client.GET('/v1/operations/{id}', { params: { path: { id }, query: { wait } } }))
}

async function readInstance(session: Session, id: string): Promise<Instance> {
  return call(session, session.client.GET('/v1/instances/{id}', { params: { path: { id } } }))
}

/** The image while the operation may be waiting for its download, else null. It only adds to what is shown. */
async function downloadOf(
  session: Session,
  operation: Operation,
  instance: Instance,
): Promise<Schemas['Image'] | null> {
  if (!operation.steps.some((step) => step.name === 'image' && step.status === 'running')) return null
  const params = { path: { id: instance.spec.image } }
  return call(session, session.client.GET('/v1/images/{id}', { params })).catch((error: unknown) => {
    if (error instanceof CliError && error.exitCode !== exitCodes.interrupted) return null
    throw error
  })
}

function operationError(operation: Operation, of: string): CliError {
  const what = `${operation.type} of ${of}`
  const { error } = operation
  if (error === null) return new CliError(exitCodes.failed, `${what} ${operation.status}`)
  const hint = error.hint === '' ? [] : [`hint: ${error.hint}`]
  const again = error.retryable ? ['the same request may succeed later'] : []
  return new CliError(exitCodes.failed, `${what} ${operation.status}: ${error.code}: ${error.message}`, {
    details: [...hint, ...again, `operation: ${operation.id}`],
  })
}

function impossibleError(instance: Instance, target: WaitTarget): CliError {
  const { state, reason, message, conditions } = instance.status
  const guest = conditions.find(({ type }) => type === 'GuestReady')
  if (target === 'ready' && state === 'running' && guest?.status === 'false') {
    return new CliError(exitCodes.failed, `${describe(instance)} runs but is not ready: ${guest.message}`, {
      details: [...hintOf(guest.reason), `its console: berth instance console-log ${instance.id}`],
    })
  }
  const why = [reason, message].filter((text) => text !== '').join(': ')
  const text = `${describe(instance)} will not be ${target}: it is ${state}${why === '' ? '' : ` (${why})`}`
  return new CliError(exitCodes.failed, text, { details: hintOf(reason) })
}

function hintOf(reason: string): string[] {
  const hints: Readonly<Record<string, string>> = failureCatalogue
  const hint = Object.hasOwn(hints, reason) ? hints[reason] : undefined
  return hint === undefined ? [] : [`hint: ${hint}`]
}

function timeoutError(instance: Instance, what: string, patience: Patience): CliError {
  const { state, conditions } = instance.status
  const scheduled = conditions.find(({ type }) => type === 'Scheduled')
  const waitsForRoom = scheduled?.status === 'false' ? [scheduled.message] : []
  const text = `${what} after ${patience.timeoutSeconds} s; the instance is ${state}`
  return new CliError(exitCodes.timeout, text, {
    details: [...waitsForRoom, `see how it goes on: berth instance show ${instance.id}`],
  })
}
