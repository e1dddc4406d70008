import { failureCatalogue } from '@berth/contract/errors.ts'
import type { HostCondition, ObservedStep } from '@berth/contract/hosts/agent-protocol.ts'
import { endsBoot, type MachineTrouble } from '@berth/contract/instances/machine-troubles.ts'
import type { StepName } from '@berth/contract/operations.ts'
import type { CrashPolicy } from '../config.ts'
import type { ReadyMarker } from '../console/ready-marker.ts'
import type { GuestState, HostError } from '../host-driver.ts'
import { guestCondition } from './guest-condition.ts'
import { type InstanceRecord, staysOff } from './record.ts'

/** Reason of `NetworkReady` while a rule of its groups cannot be put in force on the host. */
export const rulesNotInForce = 'rules_not_in_force' satisfies keyof typeof failureCatalogue

/** Ready marks of other boots are taken at most this often; milliseconds. */
const readyEveryMs = 5000

/** Earlier boots whose ids are remembered. */
const mostEarlierBoots = 16

/** What others want to hear of an instance's progress, for figures and logs. */
export interface ProgressEvents {
  attemptFailed(step: StepName): void
  stepEnded(step: ObservedStep): void
  /** The VMM is gone without having been asked to go. */
  vmmLost(cause: 'crash' | 'host'): void
  /** The machine has begun not to run its guest. */
  troubled(reason: MachineTrouble): void
}

/**
 * Writes what happens to an instance into its record: what each event means for power, conditions, timeline and steps.
 * It decides nothing about what to do next (instance-plan.ts) and does nothing itself (instance-worker.ts).
 */
export class InstanceProgress {
  readonly #record: InstanceRecord
  readonly #crashPolicy: CrashPolicy
  readonly #now: () => number
  readonly #persist: () => void
  readonly #events: ProgressEvents
  #readyAt = Number.NEGATIVE_INFINITY

  constructor(
    record: InstanceRecord,
    crashPolicy: CrashPolicy,
    now: () => number,
    persist: () => void,
    events: ProgressEvents,
  ) {
    this.#record = record
    this.#crashPolicy = crashPolicy
    this.#now = now
    this.#persist = persist
    this.#events = events
  }

  /**
   * A newer intent is being looked at: failures and steps were those of the one before. `samePowerSince` is the first
   * generation that asked for the same power: a guest that went off under one since then has gone off under this one.
   */
  see(generation: number, samePowerSince = generation): void {
    const record = this.#record
    if (staysOff(record.off_cause) && record.off_generation >= samePowerSince) record.off_generation = generation
    record.seen_generation = generation
    record.failure = null
    if (record.power !== 'absent') record.steps = []
    this.save()
  }

  /** Nothing is left to do for the intent that is seen, unless the host has given up on it. */
  settled(): void {
    const record = this.#record
    if (record.failure !== null || record.done_generation === record.seen_generation) return
    if (record.power === 'starting') return // there is a VMM that cannot be asked whether it came up
    record.done_generation = record.seen_generation
    this.save()
  }

  /** A start begins. A fresh boot is what every reboot that was asked for until now wanted. */
  starting(reboots: number): void {
    const record = this.#record
    const afterCrash = record.off_cause === 'crash' && record.off_generation === record.seen_generation
    if (!afterCrash) record.quick_deaths = 0 // somebody asked for this one: the row is over
    record.power = 'starting'
    record.off_cause = ''
    record.reboots = reboots
    delete record.timeline.vmm_started_at
    delete record.timeline.kernel_at
    delete record.timeline.guest_ready_at
    this.setCondition('Booted', 'unknown')
    this.setCondition('GuestReady', 'unknown')
    this.save()
  }

  /** The VMM is about to be started. */
  booting(hostBootId: string): void {
    this.#endBoot()
    this.#readyAt = Number.NEGATIVE_INFINITY
    this.#record.host_boot_id = hostBootId
    this.save()
  }

  /** A start was given up because something else is wanted by now. */
  abandoned(): void {
    for (const step of this.#record.steps) if (step.status === 'running') step.status = 'cancelled'
    this.off('host')
  }

  /** A start has failed, and the host will not try again under this intent. */
  failed(error: HostError): void {
    const { code, message, retryable } = error
    this.#record.failure = { code, message, retryable }
    this.off('host', { reason: code, message })
  }

  /** The VMM should go and does not. What is wanted then cannot be reached, for as long as it stays. */
  notPoweredOff(error: HostError): void {
    const { code, message, retryable } = error
    this.#record.failure = { code, message, retryable }
    this.save()
  }

  /** Nothing of the instance is left on this host. */
  removed(): void {
    const record = this.#record
    record.netns = ''
    record.nic = null
    record.trouble = null
    record.power = 'absent'
    record.done_generation = record.seen_generation
    this.save()
  }

  /** The VMM's CPUs run. */
  cpusRun(at: number): void {
    const record = this.#record
    record.power = 'running'
    record.off_cause = ''
    record.started_at = at
    record.timeline.vmm_started_at = at
    this.setCondition('Booted', 'true')
    this.save()
  }

  /** What the VMM says of its guest. While it does not run, the conditions that are about it say so. */
  guestSeen(guest: GuestState): void {
    const record = this.#record
    const reason = guest === 'running' || guest === 'off' ? null : guest
    if (reason === (record.trouble?.reason ?? null)) return
    const now = this.#now()
    if (reason === null) {
      for (const type of ['Booted', 'GuestReady'] as const) {
        const condition = record.conditions[type]
        if (condition !== undefined) condition.at = now // it holds again since now
      }
      record.trouble = null
    } else {
      record.trouble = { reason, at: now }
      this.#events.troubled(reason)
    }
    this.save()
  }

  /**
   * Whether the running VMM has its tap open. One that was removed under it and made anew cannot be handed to it: QEMU
   * opens its tap when it starts, and the card of a running machine cannot be given another one.
   */
  tapSeen(open: boolean): void {
    const lost = this.#record.conditions.NetworkReady?.reason === 'tap_lost'
    if (lost !== open) return
    if (open) this.setCondition('NetworkReady', 'true')
    else this.setCondition('NetworkReady', 'false', 'tap_lost', failureCatalogue.tap_lost)
    this.save()
  }

  /**
   * Whether the rules of the groups of its card are in force, and if not, why. `mended`: the card is as it is asked for, so
   * what a change of it had failed for is over.
   */
  networkSeen(rulesFault: string | null, { mended = false } = {}): void {
    const seen = this.#record.conditions.NetworkReady
    if (seen === undefined || seen.reason === 'tap_lost') return
    const ours = seen.status === 'true' || seen.reason === rulesNotInForce || mended
    const told = rulesFault === null ? seen.status === 'true' : seen.message === rulesFault
    if (!ours || told) return
    if (rulesFault === null) this.setCondition('NetworkReady', 'true')
    else this.setCondition('NetworkReady', 'false', rulesNotInForce, rulesFault)
    this.save()
  }

  /** The card could not be changed to what is asked for; it is tried again. */
  networkNotChanged({ code, message }: HostError): void {
    const seen = this.#record.conditions.NetworkReady
    if (seen?.reason === 'tap_lost' || (seen?.reason === code && seen.message === message)) return
    this.setCondition('NetworkReady', 'false', code, message)
    this.save()
  }

  /** The kernel has said its first words. */
  kernelSeen(): void {
    if (this.#record.timeline.kernel_at !== undefined) return
    this.#record.timeline.kernel_at = this.#now()
    this.save()
  }

  /**
   * The guest says that its first boot is over; false when that is no news. It says it twice on its serial line, in case
   * one is torn, and once to the metadata service. What was said in an earlier boot and comes only now counts for nothing.
   */
  guestReady(marker: ReadyMarker): boolean {
    const record = this.#record
    if (record.power !== 'running' || marker.boot_id === record.ready_boot_id) return false
    if (record.earlier_boot_ids.includes(marker.boot_id)) return false
    // a guest may print what it likes: it gets no more of the host's work by that
    if (this.#now() - this.#readyAt < readyEveryMs) return false
    this.#readyAt = this.#now()
    this.#endBoot()
    record.ready_boot_id = marker.boot_id
    record.timeline.guest_ready_at ??= this.#now()
    const { status, reason, message } = guestCondition(marker)
    this.setCondition('GuestReady', status, reason, message)
    this.save()
    return true
  }

  /** The boot that was heard of last is over. */
  #endBoot(): void {
    const record = this.#record
    if (record.ready_boot_id === '') return
    record.earlier_boot_ids = [record.ready_boot_id, ...record.earlier_boot_ids].slice(0, mostEarlierBoots)
    record.ready_boot_id = ''
  }

  /** The VMM is gone with the host it ran on, and is still wanted. */
  hostRestarted(): void {
    this.#events.vmmLost('host')
    this.#record.failure = null
    this.off('host', { reason: 'host_restarted', message: 'The host was restarted.' })
  }

  /** The VMM is gone without having been asked to go, and is still wanted. */
  crashed(): void {
    this.#events.vmmLost('crash')
    const record = this.#record
    const { quickMs, maxQuickDeaths, firstPauseMs } = this.#crashPolicy
    const now = this.#now()
    const lived = now - (record.started_at ?? now)
    record.restarts++
    record.quick_deaths = lived < quickMs ? record.quick_deaths + 1 : 0
    record.restart_not_before = now + firstPauseMs * 2 ** Math.max(0, record.quick_deaths - 1)
    if (record.quick_deaths >= maxQuickDeaths) {
      record.quick_deaths = 0
      record.failure = {
        code: 'crash_loop',
        message: `QEMU ended within ${quickMs / 1000} s of its start ${maxQuickDeaths} times in a row.`,
        retryable: true,
      }
    }
    this.off('crash', this.#endOfBoot() ?? { reason: 'vmm_crashed', message: 'QEMU ended unexpectedly.' })
  }

  /** The VMM of a guest that could not go on is gone, and is to stay so. */
  stoppedAfterPanic(): void {
    this.off('panic', this.#endOfBoot() ?? undefined)
  }

  /** What ended the boot while the VMM was there, or null. */
  #endOfBoot(): { reason: string; message: string } | null {
    const { trouble } = this.#record
    if (trouble === null || !endsBoot(trouble.reason)) return null
    return { reason: trouble.reason, message: failureCatalogue[trouble.reason] }
  }

  /** There is no VMM any more, who ended it, and what `Booted` says of that. */
  off(cause: InstanceRecord['off_cause'], booted = { reason: 'powered_off', message: '' }): void {
    const record = this.#record
    record.power = 'off'
    record.off_cause = cause
    record.off_generation = record.seen_generation
    record.started_at = null
    record.trouble = null
    if (record.failure?.code === 'power_off_failed') record.failure = null // it is gone after all
    this.setCondition('Booted', 'false', booted.reason, booted.message)
    this.setCondition('GuestReady', 'unknown')
    this.save()
  }

  /** Begin a step anew; what is set in it is saved with what follows. */
  beginStep(name: StepName): ObservedStep {
    const record = this.#record
    record.steps = record.steps.filter((step) => step.name !== name)
    const step: ObservedStep = {
      name,
      status: 'running',
      attempt: 0,
      started_at: this.#now(),
      finished_at: null,
      error: null,
    }
    record.steps.push(step)
    return step
  }

  /** Begin another attempt of a step that has not succeeded yet, or the step anew. */
  resumeStep(name: StepName): ObservedStep {
    const earlier = this.#record.steps.find((step) => step.name === name && step.status !== 'succeeded')
    const step = earlier ?? this.beginStep(name)
    step.status = 'running'
    step.finished_at = null
    step.attempt++
    return step
  }

  endStep(step: ObservedStep, status: 'succeeded' | 'failed', error: HostError | null = null): void {
    step.status = status
    step.finished_at = this.#now()
    if (status === 'succeeded') step.error = null
    else if (error !== null) this.attemptFailed(step, error)
    this.#events.stepEnded(step)
  }

  /** An attempt of a step has failed; another may follow. */
  attemptFailed(step: ObservedStep, error: HostError): void {
    step.error = { code: error.code, message: error.message }
    this.#events.attemptFailed(step.name)
  }

  setCondition(type: HostCondition, status: 'true' | 'false' | 'unknown', reason = '', message = ''): void {
    this.#record.conditions[type] = { status, reason, message, at: this.#now() }
  }

  /** Make the record durable and have it reported. */
  save(): void {
    this.#persist()
  }
}
