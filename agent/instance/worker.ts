import { endsBoot } from '@berth/contract/instances/machine-troubles.ts'
import type { Logger } from 'pino'
import type { AgentSettings } from '../config.ts'
import type { ReadyMarker } from '../console/ready-marker.ts'
import { SerialFollower } from '../console/serial-follower.ts'
import type { HostDriver, Vmm } from '../host-driver.ts'
import { LedgerUnavailable } from '../ledger.ts'
import type { Guest } from '../metadata/guest.ts'
import type { NetworkFault } from '../network/network-fault.ts'
import { gatewayFor, isSameNic, type Nic } from '../network/nic.ts'
import type { AgentMetrics } from '../report/metrics.ts'
import type { Timers } from '../sys/timers.ts'
import { type InstanceAct, InstanceActs } from './acts.ts'
import type { Intent } from './intent.ts'
import { logOf } from './log.ts'
import { planInstance } from './plan.ts'
import { InstanceProgress, type ProgressEvents } from './progress.ts'
import type { InstanceRecord } from './record.ts'
import { silentFrom } from './silence.ts'
import { WakeUp } from './wake-up.ts'

/** Pause before an act that failed is planned anew, milliseconds. */
const afterFailureMs = 2000

export interface WorkerEnvironment {
  driver: HostDriver
  settings: AgentSettings
  log: Logger
  metrics: AgentMetrics
  now: () => number
  timers: Timers
  /** Make the record durable and have it reported. */
  save: (record: InstanceRecord) => void
  /** Have the record reported, and durable before that. */
  note: (record: InstanceRecord) => void
  /** Give the server the rest of the serial output; returns also when the server cannot be reached. */
  flushConsole: (id: string) => Promise<void>
  /** Have the state of downloads reported. */
  reportProgress: () => void
}

/**
 * Drives one instance to what is desired of it: plan, act (`InstanceActs`), plan again, one act at a time. An act that
 * takes long looks at the newest intent while it waits, and every call of the driver has a deadline, so a delete never
 * stands behind a download, a slow shutdown or a call that hangs (docs/decisions/0014). What happens is written into the
 * instance's record by its `InstanceProgress` alone.
 *
 * The record's `power` over the life of an instance; each change is saved before the next line runs:
 *
 *   off ─start─▶ starting ─CPUs run─▶ running ─stop, delete, reboot─▶ shutting_down ─gone─▶ off ─remove─▶ absent
 *                                        └─ guest powers off, guest fails, VMM dies ─▶ off
 */
export class InstanceWorker {
  readonly #env: WorkerEnvironment
  readonly #log: Logger
  readonly #progress: InstanceProgress
  readonly #serial: SerialFollower
  readonly #acts: InstanceActs
  readonly #stopping = new AbortController()
  readonly #wakeUp: WakeUp
  #intent: Intent
  /** The record has changed since it was last written down. */
  #unsaved = false
  #running: Promise<void> | null = null

  constructor(env: WorkerEnvironment, record: InstanceRecord, intent: Intent) {
    this.#env = env
    this.#intent = intent
    this.#log = logOf(env.log, record.id, () => this.#intent.instance.operation_id)
    this.#wakeUp = new WakeUp(env.timers, this.#stopping.signal)
    this.#progress = new InstanceProgress(record, {
      crash: env.settings.crash,
      now: env.now,
      save: env.save,
      note: env.note,
      events: progressEvents(env.metrics, this.#log),
    })
    this.#serial = new SerialFollower(env.driver, this.record, env.timers, {
      onKernel: () => this.#note(() => this.#progress.kernelSeen()),
      onReady: (marker) => this.guestReady(marker),
    })
    this.#acts = new InstanceActs({
      ...env,
      progress: this.#progress,
      serial: this.#serial,
      wakeUp: this.#wakeUp,
      log: this.#log,
      intent: () => this.#intent,
      stopping: this.#stopping.signal,
    })
  }

  /** The record as it is now; it changes with the instance. */
  get record(): InstanceRecord {
    return this.#progress.record
  }

  /** Look for a VMM that runs already, then begin to work. */
  start(): void {
    this.#running ??= this.#run().catch((error) => this.#log.error({ err: error }, 'the worker ended'))
  }

  /** Take a newer intent; what is being done for an older one is given up where that is possible. */
  setIntent(intent: Intent): void {
    const before = this.#intent.instance
    this.#intent = intent
    if (JSON.stringify(before) === JSON.stringify(intent.instance)) return
    if (before.power === 'running' && intent.instance.power !== 'running') this.#acts.giveUp()
    this.#wakeUp.call()
  }

  /** The VMM that it follows, null while there is none. */
  get vmm(): Vmm | null {
    return this.#acts.vmm
  }

  /** What a guest that asks is told; null while it has no card, or not everything about it is known. */
  get guest(): Guest | null {
    const { nic, image, started_at: startedAt } = this.record
    const { instance, network } = this.#intent
    if (nic === null || image === null || network === null) return null
    return { instance, network, image, nic, startedAt }
  }

  /** The guest says that its first boot is over. */
  guestReady(marker: ReadyMarker): void {
    // who waited for this looks at the console next
    this.#note(() => {
      if (this.#progress.guestReady(marker)) void this.#env.flushConsole(this.record.id)
    })
  }

  /** Take in whether the VMM that runs since `startedAt` has its tap open. */
  noteTap(open: boolean, startedAt: number): void {
    const { power, started_at: since } = this.record
    if (power === 'running' && since === startedAt) this.#note(() => this.#progress.tapSeen(open))
  }

  /** Take in why its card is not all that was asked for, null when it is. */
  noteNetwork(fault: NetworkFault | null): void {
    const { nic, power, conditions } = this.record
    const failed = conditions.NetworkReady?.status === 'false'
    const mended = failed && power === 'running' && nic !== null && this.#isCurrent(nic)
    this.#note(() => this.#progress.networkSeen(fault, { mended }))
  }

  /** Serial output that the server has not got yet. */
  get serial(): SerialFollower {
    return this.#serial
  }

  /** Stop working and let go of the VMM; it runs on. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#running
    this.#serial.stop()
    this.#acts.detach()
  }

  get #stopped(): boolean {
    return this.#stopping.signal.aborted
  }

  async #run(): Promise<void> {
    await this.#adoptUntilKnown()
    while (!this.#stopped) {
      this.#wakeUp.clear()
      try {
        if (this.#unsaved) this.#progress.save()
        this.#unsaved = false
        this.#notice()
        const silentIn = this.#noticeSilence()
        const action = planInstance(this.#intent.instance, this.#situation(), this.#env.now())
        if (action.kind === 'none') {
          this.#progress.settled()
          await this.#wakeUp.pause(silentIn)
        } else if (action.kind === 'wait') {
          await this.#wakeUp.pause(action.untilMs - this.#env.now()) // only what is off waits: it cannot fall silent
        } else {
          await this.#perform(action)
        }
      } catch (error) {
        this.#log.error({ err: error }, 'the act failed; it is tried again')
        this.#unsaved ||= error instanceof LedgerUnavailable
        await this.#wakeUp.pause(afterFailureMs)
      }
    }
  }

  /** Take in an event; what cannot be written down now is saved before the next act. */
  #note(event: () => void): void {
    try {
      event()
    } catch (error) {
      this.#log.error({ err: error }, 'an event could not be saved; it is tried again')
      this.#unsaved = true
      this.#wakeUp.call()
    }
  }

  /**
   * Nothing may be started before it is known whether a VMM runs already. To remove an instance that need not be known:
   * the clean-up ends whatever runs.
   */
  async #adoptUntilKnown(): Promise<void> {
    while (!this.#stopped) {
      try {
        return await this.#acts.adopt()
      } catch (error) {
        if (this.#intent.instance.power === 'deleted') return
        this.#log.error({ err: error }, 'looking for a running VMM failed; it is tried again')
        this.#wakeUp.clear()
        await this.#wakeUp.pause(afterFailureMs)
      }
    }
  }

  /** Take in what the VMM did since the last look. */
  #notice(): void {
    const { record } = this
    const { instance } = this.#intent
    if (record.seen_generation !== instance.generation) {
      this.#progress.see(instance.generation, instance.power_since)
    }
    const { vmm } = this
    if (vmm === null) return
    this.#noticeGuest(vmm)
    // what had begun to go, by the host or by itself, is seen off by the act that follows
    if (!vmm.exited() || vmm.guestState() === 'off' || record.power === 'shutting_down') return
    this.#log.error('the VMM ended unexpectedly')
    this.#acts.lost('crash')
  }

  /** Take in that the guest says nothing for too long; milliseconds until it would be, null when it cannot. */
  #noticeSilence(): number | null {
    const now = this.#env.now()
    const from = silentFrom(this.record, this.#env.driver.accelerator.kind)
    if (from === null || from > now) return from === null ? null : from - now
    this.#log.warn('nothing was heard of the guest')
    this.#progress.nothingHeard()
    return null
  }

  #noticeGuest(vmm: Vmm): void {
    const guest = vmm.guestState()
    const hasFailed = guest !== 'running' && guest !== 'off' && endsBoot(guest)
    if (vmm.exited() && !hasFailed) return // what it did last says nothing of why it ended
    const { power } = this.record
    // adopted, and started by an agent that was killed before it could note that it runs
    if ((power === 'starting' || power === 'off') && guest !== 'off' && guest !== 'unreachable') {
      this.#progress.cpusRun(this.#env.now())
      this.#serial.start()
    }
    this.#progress.guestSeen(guest)
  }

  #situation() {
    const { record } = this
    const { crash } = this.#env.settings
    return {
      vmm: this.#vmmSituation(),
      removed: record.power === 'absent',
      off_cause: record.off_cause,
      off_generation: record.off_generation,
      reboots: record.reboots,
      failed_generation: record.failure === null ? null : record.seen_generation,
      restart_not_before: record.restart_not_before,
      nic_current: record.nic === null || this.#isCurrent(record.nic),
      address_stale: record.nic !== null && !['', this.#intent.instance.public_ip].includes(record.nic.public_ip),
      longest_pause_ms: crash.firstPauseMs * 2 ** crash.maxQuickDeaths,
    } as const
  }

  #isCurrent(nic: Nic): boolean {
    const { instance, network } = this.#intent
    const { driver } = this.#env
    // a subnet's gateway stays what it is, so one that is not described has the card's
    const wanted = driver.wantedNic(instance, gatewayFor(instance, network) ?? nic.gateway, this.record.slot)
    return !this.#acts.cardInDoubt && isSameNic(nic, wanted) && driver.keepsAddress(nic)
  }

  #vmmSituation() {
    const { vmm } = this
    if (vmm === null) return 'none'
    const guest = vmm.guestState()
    if (guest === 'off') return 'guest_off'
    if (this.record.power === 'shutting_down') return 'shutting_down'
    return guest !== 'running' && endsBoot(guest) ? 'guest_failed' : 'running'
  }

  async #perform(action: InstanceAct): Promise<void> {
    const startedAt = performance.now()
    const acted = (outcome: 'done' | 'failed') =>
      this.#env.metrics.acted(action.kind, outcome, performance.now() - startedAt)
    this.#log.info({ action: action.kind }, 'acting')
    try {
      await this.#acts.perform(action)
      acted('done')
    } catch (error) {
      acted('failed')
      throw error
    }
  }
}

/** Counts and logs what happens to an instance. */
function progressEvents(metrics: AgentMetrics, log: Logger): ProgressEvents {
  return {
    attemptFailed: (step) => metrics.stepFailures.inc({ step }),
    stepEnded: (step) => {
      metrics.stepEnded(step)
      const { name, status, attempt, error } = step
      log.info({ step: name, status, attempt, ...(error === null ? {} : { code: error.code }) }, 'step ended')
    },
    vmmLost: (cause) => metrics.vmmsLost.inc({ cause }),
    troubled: (reason) => {
      metrics.troubles.inc({ reason })
      log.warn({ reason }, 'the machine does not run its guest')
    },
  }
}
