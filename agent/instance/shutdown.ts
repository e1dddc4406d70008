import { endsBoot } from '@berth/contract/instances/machine-troubles.ts'
import type { Logger } from 'pino'
import type { GuestState, Vmm } from '../host-driver.ts'
import type { Timers } from '../sys/timers.ts'
import type { BoundedCalls } from './bounded-calls.ts'
import type { InstanceProgress } from './progress.ts'
import { stepError } from './steps.ts'

/** A guest that is just starting may not hear the power button, so it is pressed again; milliseconds. */
const buttonEveryMs = 2000

export interface ShutdownOptions {
  progress: InstanceProgress
  calls: BoundedCalls
  timers: Timers
  log: Logger
  /** Time the end of the process may take. */
  timeoutMs: number
}

/** What a guest gets before its process is ended. */
export interface Grace {
  /** Seconds it has by the newest intent, which may only shorten them. */
  seconds: () => number
  /** Wait so long at most; ends early when something has happened. */
  pause: (ms: number) => Promise<void>
  /** Whether it is not waited for any more, whatever it has left. */
  givenUp: () => boolean
}

/** Ends VMMs: power button, time for the guest, end of the process. */
export class InstanceShutdown {
  readonly #options: ShutdownOptions

  constructor(options: ShutdownOptions) {
    this.#options = options
  }

  /** Press the power button until the guest is off or its grace is over. */
  async giveGrace(vmm: Vmm, grace: Grace): Promise<void> {
    const { log, timers } = this.#options
    const startedAt = timers.elapsedMs()
    let seconds = grace.seconds()
    let isPressed = false
    while (!grace.givenUp() && !vmm.exited() && mayShutDown(vmm.guestState())) {
      seconds = Math.min(seconds, grace.seconds())
      const leftMs = startedAt + seconds * 1000 - timers.elapsedMs()
      if (leftMs <= 0) return
      if (!isPressed) {
        isPressed = true
        // not waited for: a VMM that does not answer has its grace like any other, and no more
        void vmm
          .powerButton()
          .catch((error) => log.warn({ err: error }, 'the power button did not work'))
          .finally(() => {
            isPressed = false
          })
      }
      await grace.pause(Math.min(leftMs, buttonEveryMs))
    }
  }

  /** End the process, `asStep` as the step that has begun; when it does not end that is in the report, and thrown. */
  async end(vmm: Vmm, { asStep }: { asStep: boolean }): Promise<void> {
    const { progress, calls, timeoutMs } = this.#options
    try {
      await calls.run({ name: 'shutdown', timeoutMs, work: () => vmm.quit() })
    } catch (error) {
      const known = stepError(error, 'shutdown')
      if (asStep) progress.endStep('shutdown', 'failed', known)
      progress.notPoweredOff(known)
      throw known
    }
    if (asStep) progress.endStep('shutdown', 'succeeded')
  }
}

/** Whether the guest may still power itself off; one that has failed cannot. */
function mayShutDown(guest: GuestState): boolean {
  return guest === 'running' || (guest !== 'off' && !endsBoot(guest))
}
