import type { HostCondition } from '@berth/contract/hosts/agent-protocol.ts'
import type { Logger } from 'pino'
import type { AgentSettings, HostStep } from '../config.ts'
import { HostError } from '../host-driver.ts'
import { pause, type Timers } from '../sys/timers.ts'
import { type BoundedCalls, CallTimedOut } from './bounded-calls.ts'
import type { InstanceProgress } from './progress.ts'

/** A step of a start. */
export interface StartStep<T> {
  name: HostStep
  condition: Exclude<HostCondition, 'GuestReady'>
  /** Aborted when the start is given up. */
  signal: AbortSignal
  work: (signal: AbortSignal) => Promise<T>
  /** Undo what `work` brings when that comes after it was given up. */
  discard?: (late: T) => Promise<void>
}

/**
 * Runs the steps of a start, each with its record in the report and its deadline. A failure that may pass is tried
 * again after a pause. Throws HostError, or anything when the start was given up.
 */
export class InstanceSteps {
  readonly #progress: InstanceProgress
  readonly #calls: BoundedCalls
  readonly #settings: AgentSettings
  readonly #timers: Timers
  readonly #log: Logger

  constructor(progress: InstanceProgress, calls: BoundedCalls, settings: AgentSettings, timers: Timers, log: Logger) {
    this.#progress = progress
    this.#calls = calls
    this.#settings = settings
    this.#timers = timers
    this.#log = log
  }

  async run<T>({ name, condition, signal, work, discard }: StartStep<T>): Promise<T> {
    const timeoutMs = this.#settings.deadlinesMs[name]
    this.#progress.beginStep(name)
    for (;;) {
      signal.throwIfAborted()
      const attempt = this.#progress.beginAttempt(name)
      try {
        const call = { name, timeoutMs, signal, work }
        const value = await this.#calls.run(discard === undefined ? call : { ...call, discard })
        this.#progress.endStep(name, 'succeeded')
        if (condition !== 'Booted') this.#progress.prepared(condition) // Booted comes with the CPUs' start
        return value
      } catch (error) {
        const known = stepError(error, name)
        this.#progress.attemptFailed(name, known)
        const pauseMs = this.#settings.retryPausesMs[attempt - 1]
        if (signal.aborted || !known.tryAgain || pauseMs === undefined) {
          this.#progress.endStep(name, 'failed')
          this.#progress.setCondition(condition, 'false', known.code, known.message)
          throw known
        }
        this.#log.warn({ err: error, step: name, attempt }, 'the step failed; it is tried again')
        this.#progress.note()
        await pause(this.#timers, pauseMs, signal) // what aborts it is looked at above
      }
    }
  }
}

/** The code of a failure that says nothing itself, and of a deadline that passed, by the step it came from. */
const stepCodes = {
  image: { failed: 'image_download_failed', overdue: 'image_deadline_exceeded' },
  disk: { failed: 'disk_failed', overdue: 'step_deadline_exceeded' },
  network: { failed: 'network_failed', overdue: 'step_deadline_exceeded' },
  boot: { failed: 'vmm_start_failed', overdue: 'boot_deadline_exceeded' },
  shutdown: { failed: 'power_off_failed', overdue: 'power_off_failed' },
  'clean-up': { failed: 'clean_up_failed', overdue: 'step_deadline_exceeded' },
} as const satisfies Record<HostStep, { failed: string; overdue: string }>

/** What went wrong in a step, under a code of the failure catalogue. */
export function stepError(error: unknown, step: HostStep): HostError {
  if (error instanceof HostError) return error
  if (!(error instanceof CallTimedOut)) {
    const options = { cause: error, retryable: true, tryAgain: true }
    return new HostError(stepCodes[step].failed, messageOf(error), options)
  }
  const why = error.cause === undefined ? '' : `: ${messageOf(error.cause)}`
  const message = `The step ${step} did not end within ${duration(error.timeoutMs)}${why}`
  // a download has had its own attempts, and there is no time for as long again
  return new HostError(stepCodes[step].overdue, message, { cause: error, retryable: true, tryAgain: step !== 'image' })
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function duration(ms: number): string {
  if (ms < 1000) return `${ms} ms`
  return ms < 120_000 ? `${ms / 1000} s` : `${Math.round(ms / 60_000)} min`
}
