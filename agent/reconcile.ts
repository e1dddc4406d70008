import type { Desired, Observed } from '@berth/contract/hosts/agent-protocol.ts'
import { maxSlots } from '@berth/contract/hosts/names.ts'
import type { MachineTrouble } from '@berth/contract/instances/machine-troubles.ts'
import type { ObservedPower } from '@berth/contract/instances/states.ts'
import type { Logger } from 'pino'
import type { AgentSettings } from './config.ts'
import type { ReadyMarker } from './console/ready-marker.ts'
import type { HostDriver } from './host-driver.ts'
import { intentOf } from './instance/intent.ts'
import { type InstanceRecord, inHostBoot, newRecord, observedInstance } from './instance/record.ts'
import { InstanceWorker } from './instance/worker.ts'
import { type Ledger, LedgerUnavailable } from './ledger.ts'
import type { Guest } from './metadata/guest.ts'
import type { NetworkFault } from './network/network-fault.ts'
import { withHeldAddress } from './network/public-addresses.ts'
import type { AgentMetrics } from './report/metrics.ts'
import type { KnownObjects } from './sys/leftovers.ts'
import type { Timers } from './sys/timers.ts'

/** Progress of downloads alone makes a report at most this often, milliseconds. */
const progressEveryMs = 500

/** Instances in a report of what changed; the server stores a report in one transaction. */
const mostChanged = 50

export interface ReconcilerOptions {
  driver: HostDriver
  ledger: Ledger
  settings: AgentSettings
  log: Logger
  metrics: AgentMetrics
  now: () => number
  timers: Timers
  /** Something that the server should hear of has changed. */
  onChange: () => void
  /** Give the server the rest of an instance's serial output. */
  flushConsole: (id: string) => Promise<void>
}

/** The network card of an instance. */
interface Card {
  id: string
  tap: string
  /** Null unless its VMM runs. */
  runningSince: number | null
}

/**
 * Holds one worker per instance and hands each what is desired of it. Instances the server does not name are left
 * alone: only an explicit `deleted` removes one, so a server that was restored from an older backup destroys nothing
 * (docs/decisions/0004).
 */
export class Reconciler {
  readonly #options: ReconcilerOptions
  readonly #workers = new Map<string, InstanceWorker>()
  readonly #records = new Map<string, InstanceRecord>()
  #unreported = new Set<string>()
  /** Instances that are to be stopped or deleted. */
  #leaving = new Set<string>()
  #revision = 0
  #progressAt = 0

  constructor(options: ReconcilerOptions) {
    this.#options = options
    for (const stored of options.ledger.loadRecords()) {
      const record = inHostBoot(stored, options.driver.hostBootId)
      this.#records.set(record.id, record)
      if (record.nic !== null) options.driver.restore(record.vpc_id, record.nic)
    }
    options.driver.onNetworkChange(() => this.noteNetworks())
  }

  /** Have each instance note whether its card is all that was asked for. */
  noteNetworks(): void {
    for (const { id, vpc_id: vpcId, nic } of this.#records.values()) {
      if (nic !== null) this.#workers.get(id)?.noteNetwork(this.#options.driver.networkFault(vpcId, nic))
    }
  }

  /** How many instances say that this of their network is not as it is asked for. */
  countFaults(reason: NetworkFault['reason']): number {
    const records = [...this.#records.values()]
    return records.filter(({ conditions }) => conditions.NetworkReady?.reason === reason).length
  }

  /** Revision of the last desired state that was taken. */
  get revision(): number {
    return this.#revision
  }

  get workers(): ReadonlyMap<string, InstanceWorker> {
    return this.#workers
  }

  /**
   * Act on what is in the ledger, as a host does that comes up with the server away. It attaches no public address,
   * which may be another host's by now; machines that still run keep theirs.
   */
  resume(): void {
    const desired = this.#options.ledger.loadDesired()
    if (desired === null) return
    const nicOf = (id: string) => this.#records.get(id)?.nic ?? null
    this.#distribute({
      ...desired,
      instances: desired.instances.map((instance) => withHeldAddress(instance, nicOf(instance.id))),
    })
  }

  /** Take what the server wants: durable first, then acted on. */
  apply(desired: Desired): void {
    const startedAt = performance.now()
    this.#options.ledger.saveDesired(desired)
    this.#distribute(desired)
    this.#forgetRemoved(desired)
    this.#revision = desired.revision // only now: what failed above is fetched again
    this.#options.onChange()
    this.#options.metrics.applyDurations.observe((performance.now() - startedAt) / 1000)
  }

  /** What the host has of every instance; the rest of the report is the caller's. */
  observedInstances(): Observed['instances'] {
    this.#makeDurable()
    this.#unreported.clear()
    return [...this.#records.values()].map(observedInstance)
  }

  /** The cards that were attached in this run of the host; of an instance whose VMM runs, since when. */
  cards(): Card[] {
    return [...this.#records.values()].flatMap(({ id, nic, host_boot_id: bootId, power, started_at: startedAt }) => {
      if (nic === null || bootId !== this.#options.driver.hostBootId) return []
      return [{ id, tap: nic.tap, runningSince: power === 'running' ? startedAt : null }]
    })
  }

  /** The instances of which something may be on this host, and their VPCs. */
  known(): KnownObjects {
    const records = [...this.#records.values()].filter(({ power }) => power !== 'absent')
    return { instances: new Set(records.map(({ id }) => id)), vpcs: new Set(records.map(({ vpc_id }) => vpc_id)) }
  }

  /** Take in which of these cards' taps were found to be open in no VMM. */
  noteTaps(cards: readonly Card[], unattached: ReadonlySet<string>): void {
    for (const { id, tap, runningSince } of cards) {
      if (runningSince !== null) this.#workers.get(id)?.noteTap(!unattached.has(tap), runningSince)
    }
  }

  /** What the VMM of each instance does, with how many do so. */
  powers(): ReadonlyMap<ObservedPower, number> {
    const counts = new Map<ObservedPower, number>()
    for (const { power } of this.#records.values()) counts.set(power, (counts.get(power) ?? 0) + 1)
    return counts
  }

  /** The machines that do not run their guest, by why. */
  troubles(): ReadonlyMap<MachineTrouble, number> {
    const counts = new Map<MachineTrouble, number>()
    for (const { trouble } of this.#records.values()) {
      if (trouble !== null) counts.set(trouble.reason, (counts.get(trouble.reason) ?? 0) + 1)
    }
    return counts
  }

  /**
   * What the host has of the instances that changed since this or `observedInstances` last gave them, those that changed
   * longest ago; at most so many that the server is not kept from others for long. `onChange` is called when there are more.
   */
  changedInstances(): Observed['instances'] {
    this.#makeDurable()
    const changed = [...this.#unreported].filter((id) => !this.#options.ledger.isNoted(id))
    const ids = changed.slice(0, mostChanged)
    for (const id of ids) this.#unreported.delete(id)
    if (changed.length > ids.length) this.#options.onChange()
    const records = ids.map((id) => this.#records.get(id)).filter((record) => record !== undefined)
    return records.map(observedInstance)
  }

  /** The instance that has an address in a VPC here and now; null when none has, or when more than one claims it. */
  findGuest(vpcId: string, address: string): Guest | null {
    const holders = [...this.#records.values()].filter((record) => {
      return record.vpc_id === vpcId && record.nic?.ip === address
    })
    const [holder] = holders
    return holder === undefined || holders.length > 1 ? null : (this.#workers.get(holder.id)?.guest ?? null)
  }

  /** The guest of an instance says that its first boot is over. */
  guestReady(instanceId: string, marker: ReadyMarker): void {
    this.#workers.get(instanceId)?.guestReady(marker)
  }

  /** Stop all workers; VMs run on. */
  async stop(): Promise<void> {
    await Promise.all([...this.#workers.values()].map((worker) => worker.stop()))
  }

  /**
   * Have on disk what is about to be told: the server hears nothing that a killed agent would not know any more. What cannot
   * be written stays noted.
   */
  #makeDurable(): void {
    try {
      this.#options.ledger.flush()
    } catch (error) {
      if (!(error instanceof LedgerUnavailable)) throw error
      this.#options.log.warn({ err: error }, 'what instances have come to cannot be stored; it is told later')
    }
  }

  #distribute(desired: Desired): void {
    this.#leaving = new Set(desired.instances.filter(({ power }) => power !== 'running').map(({ id }) => id))
    this.#options.driver.removeImages(desired.removed_images ?? []) // first: an instance may need the id anew
    this.#options.driver.applyNetworks(desired)
    for (const instance of desired.instances) {
      const intent = intentOf(desired, instance)
      const worker = this.#workers.get(instance.id)
      if (worker !== undefined) {
        worker.setIntent(intent)
        continue
      }
      const fresh = new InstanceWorker(this.#environment(), this.#recordOf(instance.id, instance.vpc_id), intent)
      this.#workers.set(instance.id, fresh)
      this.#records.set(instance.id, fresh.record)
      fresh.start()
    }
  }

  /** A removed instance that the server no longer names has been acknowledged: its record can go. */
  #forgetRemoved(desired: Desired): void {
    const named = new Set<string>(desired.instances.map((instance) => instance.id))
    for (const [id, record] of this.#records) {
      if (named.has(id)) continue
      if (record.power !== 'absent') {
        this.#options.log.warn({ instance_id: id }, 'the server does not know this instance; it is left as it is')
        continue
      }
      void this.#workers.get(id)?.stop()
      this.#workers.delete(id)
      this.#records.delete(id)
      this.#options.ledger.removeRecord(id)
    }
  }

  #recordOf(id: string, vpcId: string): InstanceRecord {
    const existing = this.#records.get(id)
    if (existing !== undefined) return existing
    const record = newRecord(id, this.#freeSlot(), vpcId)
    this.#records.set(id, record)
    this.#options.ledger.noteRecord(record) // nothing is done for it before it is saved
    this.#unreported.add(id)
    return record
  }

  /** The lowest slot no instance of this host has; a removed one keeps its until the server has heard of it. */
  #freeSlot(): number {
    const taken = new Set([...this.#records.values()].map((record) => record.slot))
    for (let slot = 0; slot < maxSlots; slot++) if (!taken.has(slot)) return slot
    throw new Error(`all ${maxSlots} slots of this host are taken`)
  }

  #environment() {
    const { driver, ledger, settings, log, metrics, now, timers, onChange, flushConsole } = this.#options
    return {
      driver,
      settings,
      log,
      metrics,
      now,
      timers,
      flushConsole,
      save: (record: InstanceRecord) => {
        ledger.saveRecord(record, { leaving: this.#leaving.has(record.id) })
        this.#unreported.add(record.id)
        onChange()
      },
      note: (record: InstanceRecord) => {
        ledger.noteRecord(record, { leaving: this.#leaving.has(record.id) })
        this.#unreported.add(record.id)
        onChange()
      },
      reportProgress: () => {
        if (now() - this.#progressAt < progressEveryMs) return
        this.#progressAt = now()
        onChange()
      },
    }
  }
}
