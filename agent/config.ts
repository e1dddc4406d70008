import type { StepName } from '@berth/contract/operation-kinds.ts'

/** The steps that a host goes through; `schedule` is the server's. */
export const hostSteps = ['image', 'disk', 'network', 'boot', 'shutdown', 'clean-up'] as const satisfies StepName[]
export type HostStep = (typeof hostSteps)[number]

/** When a VMM that ended unexpectedly is started again, and when no more; times in milliseconds. */
export interface CrashPolicy {
  /** A VMM that lived shorter died quickly. */
  quickMs: number
  /** Quick deaths in a row after which the instance stays down. */
  maxQuickDeaths: number
  /** Pause before the first restart; doubles with each quick death. */
  firstPauseMs: number
}

/** What may be set of an agent; every time is in milliseconds. */
export interface AgentSettings {
  /**
   * Time one attempt of a step may take; for `shutdown` the time that the end of the process may take once the guest
   * has had its grace.
   */
  deadlinesMs: Readonly<Record<HostStep, number>>
  /** Time a call of the host driver gets to end once it was told to; after that nobody waits for it any more. */
  windDownMs: number
  /** Pauses before another attempt of a step; there are as many attempts more. */
  retryPausesMs: readonly number[]
  crash: CrashPolicy
  /** How often the host looks at what instances use; null for never. */
  usageEveryMs: number | null
  /** How often the networks are compared with what they should be. */
  networkCheckMs: number
  /** How often the host is looked at for what nothing explains. */
  orphanLookMs: number
}

const secondMs = 1000

/**
 * The steps of a start have ended, with all attempts, before the server's deadline of the operation has passed, so that
 * the operation ends with the cause and not only with the fact (docs/decisions/0014).
 */
export const defaultAgentSettings: AgentSettings = {
  deadlinesMs: {
    image: 45 * 60 * secondMs, // besides: 30 s without a byte are a stall (image/retry.ts)
    disk: 45 * secondMs,
    network: 45 * secondMs,
    boot: 30 * secondMs, // QEMU needs about 100 ms
    shutdown: 30 * secondMs, // QMP quit, then SIGKILL: 17 s at most where the kernel still ends processes
    'clean-up': 60 * secondMs,
  },
  windDownMs: 10 * secondMs,
  retryPausesMs: [secondMs, 5 * secondMs],
  crash: { quickMs: 60 * secondMs, maxQuickDeaths: 5, firstPauseMs: secondMs },
  usageEveryMs: 10 * secondMs,
  networkCheckMs: 10 * secondMs,
  orphanLookMs: 60 * secondMs,
}
