import { failureCatalogue } from '@berth/contract/errors.ts'
import type {
  DesiredImage,
  HostCondition,
  HostTimelineField,
  ObservedStep,
} from '@berth/contract/hosts/agent-protocol.ts'
import { endsBoot, type MachineTrouble } from '@berth/contract/instances/machine-troubles.ts'
import type { StepName } from '@berth/contract/operation-kinds.ts'
import type { CrashPolicy } from '../config.ts'
import type { ReadyMarker } from '../console/ready-marker.ts'
import type { GuestState, HostError } from '../host-driver.ts'
import { type NetworkFault, networkFaults } from '../network/network-fault.ts'
import type { Nic } from '../network/nic.ts'
import { countCrash } from './crashes.ts'
import { guestCondition } from './guest-condition.ts'
import { type InstanceRecord, staysOff } from './record.ts'
import { nothingHeard, silenceMessage } from './silence.ts'

/** Ready marks of other boots are taken at most this often; milliseconds. */
const readyEveryMs = 5000

/** Earlier boots whose ids are remembered. */
const mostEarlierBoots = 16

/** What others want to hear of an instance's progress, for figures and logs. */
export interface ProgressEvents {
  attemptFailed(step: StepName): void
  stepEnded(step: Readonly<ObservedStep>): void
  /** The VMM is gone without having been asked to go. */
  vmmLost(cause: 'crash' | 'host'): void
  /** The machine has begun not to run its guest. */
  troubled(reason: MachineTrouble): void
}

export interface ProgressOptions {
  crash: CrashPolicy
  now: () => number
  /** Make the record durable and have it reported. */
  save: (record: InstanceRecord) => void
  /** Have it reported, and durable before that. */
  note: (record: InstanceRecord) => void
  events: ProgressEvents
}

/** The record as its one writer has it. What is in its fields is replaced, never changed. */
type Draft = { -readonly [Field in keyof InstanceRecord]: InstanceRecord[Field] }

/**
 * The one writer of an instance's record: what each event means for power, conditions, timeline and steps. It decides
 * nothing about what to do next (plan.ts) and does nothing itself (acts.ts).
 */
export class InstanceProgress {
  readonly #record: Draft
  readonly #crashPolicy: CrashPolicy
  readonly #now: () => number
  readonly #persist: Pick<ProgressOptions, 'save' | 'note'>
  readonly #events: ProgressEvents
  #readyAt = Number.NEGATIVE_INFINITY

  /** Goes on from a record, of which it keeps its own. */
  constructor(record: InstanceRecord, { crash, now, save, note, events }: ProgressOptions) {
    this.#record = { ...record }
    this.#crashPolicy = crash
    this.#now = now
    this.#persist = { save, note }
    this.#events = events
  }

  /** The record, always the same object; it changes with what happens. */
  get record(): InstanceRecord {
    return this.#record
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
    this.note()
  }

  /** Nothing is left to do for the intent that is seen, unless the host has given up on it. */
  settled(): void {
    const record = this.#record
    if (record.failure !== null || record.done_generation === record.seen_generation) return
    if (record.power === 'starting') return // there is a VMM that cannot be asked whether it came up
    record.done_generation = record.seen_generation
    this.note()
  }

  /** A start begins. A fresh boot is what every reboot that was asked for until now wanted. */
  starting(reboots: number): void {
    const record = this.#record
    const afterCrash = record.off_cause === 'crash' && record.off_generation === record.seen_generation
    if (!afterCrash) record.quick_deaths = 0 // somebody asked for this one: the row is over
    record.power = 'starting'
    record.off_cause = ''
    record.reboots = reboots
    const { vmm_started_at: _started, kernel_at: _kernel, guest_ready_at: _ready, ...prepared } = record.timeline
    record.timeline = prepared
    this.setCondition('Booted', 'unknown')
    this.setCondition('GuestReady', 'unknown')
    this.save()
  }

  /** What its disk is made from, which outlives the image's entry in the catalogue; saved with the step that follows. */
  madeFrom(image: DesiredImage): void {
    this.#record.image = image
  }

  /** A step of the start has brought about what a condition says; saved with what follows. */
  prepared(condition: 'ImageReady' | 'DiskReady' | 'NetworkReady'): void {
    this.setCondition(condition, 'true')
    const { timeline } = this.#record
    const now = this.#now()
    if (condition === 'NetworkReady') this.#note({ network_ready_at: now })
    else if (condition === 'DiskReady') this.#note({ disk_ready_at: timeline.disk_ready_at ?? now })
    else this.#note({ image_ready_at: timeline.image_ready_at ?? now })
  }

  /** The card is attached; saved with what follows. */
  attached(netns: string, nic: Nic): void {
    this.#record.netns = netns
    this.#record.nic = nic
  }

  /** The card of the machine is as it is asked for by now, but for this fault, or null. */
  networkChanged(nic: Nic, fault: NetworkFault | null): void {
    this.#record.nic = nic
    this.networkSeen(fault, { mended: true })
    this.save()
  }

  /** The VMM is about to be started; what its serial log has from a position on belongs to this boot. */
  booting(hostBootId: string, serialStart: number): void {
    this.#endBoot()
    this.#readyAt = Number.NEGATIVE_INFINITY
    this.#record.host_boot_id = hostBootId
    this.#record.boot_serial_start = serialStart
    this.save()
  }

  /** A reboot is about to be carried out; saved with the shutdown that it begins with. */
  rebooting(count: number): void {
    this.#record.reboots = count
  }

  /** The VMM was told to go. */
  shuttingDown(): void {
    this.#record.power = 'shutting_down'
    this.save()
  }

  /** A start was given up because something else is wanted by now. */
  abandoned(): void {
    this.#record.steps = this.#record.steps.map((step) =>
      step.status === 'running' ? { ...step, status: 'cancelled' } : step,
    )
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
    this.note()
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
    this.#note({ vmm_started_at: at })
    this.setCondition('Booted', 'true')
    this.note()
  }

  /** What the VMM says of its guest. While it does not run, the conditions that are about it say so. */
  guestSeen(guest: GuestState): void {
    const record = this.#record
    const reason = guest === 'running' || guest === 'off' ? null : guest
    if (reason === (record.trouble?.reason ?? null)) return
    const now = this.#now()
    if (reason === null) {
      const { Booted: booted, GuestReady: ready } = record.conditions
      record.conditions = {
        ...record.conditions,
        ...(booted === undefined ? {} : { Booted: { ...booted, at: now } }), // it holds again since now
        ...(ready === undefined ? {} : { GuestReady: { ...ready, at: now } }),
      }
      record.trouble = null
    } else {
      record.trouble = { reason, at: now }
      this.#events.troubled(reason)
    }
    this.note()
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
    this.note()
  }

  /**
   * Whether its card is all that was asked for, and if not, why. `mended`: the card is as it is asked for, so what a change
   * of it had failed for is over.
   */
  networkSeen(fault: NetworkFault | null, { mended = false } = {}): void {
    const seen = this.#record.conditions.NetworkReady
    if (seen === undefined || seen.reason === 'tap_lost') return
    const ours = seen.status === 'true' || networkFaults.some((reason) => reason === seen.reason) || mended
    const told =
      fault === null ? seen.status === 'true' : seen.reason === fault.reason && seen.message === fault.message
    if (!ours || told) return
    if (fault === null) this.setCondition('NetworkReady', 'true')
    else this.setCondition('NetworkReady', 'false', fault.reason, fault.message)
    this.note()
  }

  /** The card could not be changed to what is asked for; it is tried again. */
  networkNotChanged({ code, message }: HostError): void {
    const seen = this.#record.conditions.NetworkReady
    if (seen?.reason === 'tap_lost' || (seen?.reason === code && seen.message === message)) return
    this.setCondition('NetworkReady', 'false', code, message)
    this.note()
  }

  /** The kernel has said its first words. */
  kernelSeen(): void {
    if (this.#record.timeline.kernel_at !== undefined) return
    this.#note({ kernel_at: this.#now() })
    this.note()
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
    this.#note({ guest_ready_at: record.timeline.guest_ready_at ?? this.#now() })
    const { status, reason, message } = guestCondition(marker)
    this.setCondition('GuestReady', status, reason, message)
    this.note()
    return true
  }

  /** The deadline of its first boot is over, and the guest has said nothing. It may yet. */
  nothingHeard(): void {
    const message = silenceMessage(this.#now() - (this.#record.started_at ?? this.#now()))
    this.setCondition('GuestReady', 'unknown', nothingHeard, message)
    this.note()
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
    Object.assign(this.#record, countCrash(this.#record, this.#crashPolicy, this.#now()))
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

  /** A step that is reported, or undefined. */
  step(name: StepName): Readonly<ObservedStep> | undefined {
    return this.#record.steps.find((step) => step.name === name)
  }

  /** Begin a step anew, without an attempt yet; saved with what follows. */
  beginStep(name: StepName): void {
    const begun = { status: 'running', attempt: 0, started_at: this.#now(), finished_at: null, error: null } as const
    this.#record.steps = [...this.#record.steps.filter((step) => step.name !== name), { name, ...begun }]
  }

  /** Begin another attempt of a step that has begun; gives its number. */
  beginAttempt(name: StepName): number {
    const attempt = (this.step(name)?.attempt ?? 0) + 1
    this.#changeStep(name, { status: 'running', attempt, finished_at: null })
    this.note()
    return attempt
  }

  /** Begin another attempt of a step that has not succeeded yet, or of the step anew. */
  resumeStep(name: StepName): void {
    const earlier = this.step(name)
    if (earlier === undefined || earlier.status === 'succeeded') this.beginStep(name)
    this.beginAttempt(name)
  }

  /** A step is over; saved with what follows. */
  endStep(name: StepName, status: 'succeeded' | 'failed', error: HostError | null = null): void {
    const changes = { status, finished_at: this.#now() }
    this.#changeStep(name, status === 'succeeded' ? { ...changes, error: null } : changes)
    if (status === 'failed' && error !== null) this.attemptFailed(name, error)
    const ended = this.step(name)
    if (ended !== undefined) this.#events.stepEnded(ended)
  }

  /** An attempt of a step has failed; another may follow. Saved with what follows. */
  attemptFailed(name: StepName, { code, message }: HostError): void {
    this.#changeStep(name, { error: { code, message } })
    this.#events.attemptFailed(name)
  }

  #changeStep(name: StepName, changes: Partial<ObservedStep>): void {
    this.#record.steps = this.#record.steps.map((step) => (step.name === name ? { ...step, ...changes } : step))
  }

  #note(times: Partial<Record<HostTimelineField, number>>): void {
    this.#record.timeline = { ...this.#record.timeline, ...times }
  }

  setCondition(type: HostCondition, status: 'true' | 'false' | 'unknown', reason = '', message = ''): void {
    this.#record.conditions = { ...this.#record.conditions, [type]: { status, reason, message, at: this.#now() } }
  }

  /** Make the record durable and have it reported. */
  save(): void {
    this.#persist.save(this.#record)
  }

  /** Have the record reported, and durable before that: what a start or a look finds out anew when it is lost. */
  note(): void {
    this.#persist.note(this.#record)
  }
}
