import type { Logger } from 'pino'
import type { Timers } from '../sys/timers.ts'
import { untilAborted } from '../sys/until-aborted.ts'

/** A call did not end in time. `cause` is what it said when it was told to end, if it said anything. */
export class CallTimedOut extends Error {
  readonly timeoutMs: number

  constructor(timeoutMs: number, options: { cause?: unknown } = {}) {
    super(`it did not end within ${timeoutMs} ms`, options)
    this.name = 'CallTimedOut'
    this.timeoutMs = timeoutMs
  }
}

/** A call that may hang. */
export interface BoundedCall<T> {
  name: string
  timeoutMs: number
  /** Ends the call when nobody wants its result any more. */
  signal?: AbortSignal
  /** Ends as soon as it can once its signal is aborted, with nothing half done left alive. */
  work: (signal: AbortSignal) => Promise<T>
  /** Undo what the call brings when that comes after it was given up. */
  discard?: (late: T) => Promise<void>
  /** Do not wait for calls of other names that hang. */
  besideOthers?: boolean
}

/**
 * The calls of one instance to its host, one after the other, each under a deadline. A call that is over its time is
 * told to end. One that does not even do that within `windDownMs` is given up, but not forgotten: the next call waits
 * until it has ended, within its own deadline. So nothing is begun beside a start that may still bring a VMM.
 *
 *   running ─ends─▶ (its result)
 *      └─deadline, abort─▶ told to end ─ends─▶ (its result, or CallTimedOut or the reason of the abort)
 *                             └─windDownMs─▶ given up ─ends, perhaps never─▶ discard, onLate
 */
export class BoundedCalls {
  readonly #windDownMs: number
  readonly #timers: Timers
  readonly #log: Logger
  readonly #onLate: () => Promise<void>
  /** Calls that were given up and have not ended, with their names. */
  readonly #hanging = new Map<Promise<void>, string>()

  /** `onLate` is called when a call has ended that was given up, after what it brought was discarded. */
  constructor(options: { windDownMs: number; timers: Timers; log: Logger; onLate: () => Promise<void> }) {
    this.#windDownMs = options.windDownMs
    this.#timers = options.timers
    this.#log = options.log
    this.#onLate = options.onLate
  }

  /** The result of a call. Throws its error, CallTimedOut at the deadline, or the reason of the signal. */
  async run<T>(call: BoundedCall<T>): Promise<T> {
    const { timeoutMs } = call
    const overtime = new AbortController()
    const endTimer = this.#timers.after(timeoutMs, () => overtime.abort(new CallTimedOut(timeoutMs)))
    const signal = call.signal === undefined ? overtime.signal : AbortSignal.any([call.signal, overtime.signal])
    try {
      await this.#earlierOnes(call, signal)
      signal.throwIfAborted()
      return await this.#outcome(call, signal)
    } catch (error) {
      const overdue = overtime.signal.aborted && signal.reason === overtime.signal.reason
      if (!overdue) throw error
      throw error instanceof CallTimedOut ? error : new CallTimedOut(timeoutMs, saysWhy(error) ? { cause: error } : {})
    } finally {
      endTimer()
    }
  }

  async #earlierOnes<T>(call: BoundedCall<T>, signal: AbortSignal): Promise<void> {
    const relevant = [...this.#hanging].filter(([, name]) => call.besideOthers !== true || name === call.name)
    if (relevant.length === 0) return
    const names = [...new Set(relevant.map(([, name]) => name))].join(', ')
    await untilAborted(Promise.all(relevant.map(([end]) => end)), signal).catch((reason) => {
      throw reason instanceof CallTimedOut
        ? new CallTimedOut(reason.timeoutMs, { cause: new Error(`an earlier attempt still hangs (${names})`) })
        : reason
    })
  }

  async #outcome<T>(call: BoundedCall<T>, signal: AbortSignal): Promise<T> {
    const { promise: givenUp, reject: giveUp } = Promise.withResolvers<never>()
    let endWindDown = () => {}
    let isGivenUp = false
    const onAbort = () => {
      endWindDown = this.#timers.after(this.#windDownMs, () => {
        isGivenUp = true
        giveUp(signal.reason)
      })
    }
    signal.addEventListener('abort', onAbort, { once: true })
    const result = call.work(signal)
    try {
      return await Promise.race([result, givenUp])
    } catch (error) {
      if (isGivenUp) this.#remember(call, result)
      throw error
    } finally {
      signal.removeEventListener('abort', onAbort)
      endWindDown()
    }
  }

  #remember<T>(call: BoundedCall<T>, result: Promise<T>): void {
    this.#log.error({ call: call.name }, 'the call does not end; it is not waited for any more')
    const end = result
      .then(
        (late) => call.discard?.(late),
        () => undefined,
      )
      .then(() => this.#onLate())
      .catch((error) => this.#log.error({ err: error, call: call.name }, 'what a call left behind could not be undone'))
      .then(() => {
        this.#hanging.delete(end)
        this.#log.warn({ call: call.name }, 'a call that was given up has ended')
      })
    this.#hanging.set(end, call.name)
  }
}

/** Whether an error says more than that its work was aborted. */
function saysWhy(error: unknown): boolean {
  return !(error instanceof Error && error.name === 'AbortError')
}
