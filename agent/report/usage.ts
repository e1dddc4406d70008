import type { ObservedUsage } from '@berth/contract/instances/usage.ts'
import type { Logger } from 'pino'
import type { CardTraffic, HostDriver, Vmm } from '../host-driver.ts'
import type { InstanceRecord } from '../instance/record.ts'

/** An instance whose use is looked at. */
export interface UsageSubject {
  record: InstanceRecord
  /** null while it has no VMM. */
  vmm: Vmm | null
}

const noTraffic: CardTraffic = { received_bytes: 0, received_packets: 0, sent_bytes: 0, sent_packets: 0 }

/** Looks now and then at what the running instances of a host use. */
export class UsageSampler {
  readonly #driver: HostDriver
  readonly #now: () => number
  readonly #log: Logger
  #latest: readonly ObservedUsage[] = []

  constructor(driver: HostDriver, now: () => number, log: Logger) {
    this.#driver = driver
    this.#now = now
    this.#log = log
  }

  /** The figures of the last look, one entry for each instance that ran then. */
  get latest(): readonly ObservedUsage[] {
    return this.#latest
  }

  /** Look at the instances that run. One that cannot be looked at is left out this time. */
  async sample(subjects: Iterable<UsageSubject>): Promise<readonly ObservedUsage[]> {
    const running = [...subjects].filter(({ record, vmm }) => vmm !== null && record.power === 'running')
    const vpcs = new Set(running.map(({ record }) => record.vpc_id))
    const traffic = running.length === 0 ? new Map<string, CardTraffic>() : await this.#trafficOf(vpcs)
    const looks = await Promise.all(running.map((subject) => this.#look(subject, traffic)))
    this.#latest = looks.filter((usage) => usage !== null)
    return this.#latest
  }

  async #trafficOf(vpcIds: ReadonlySet<string>): Promise<ReadonlyMap<string, CardTraffic>> {
    try {
      return await this.#driver.traffic(vpcIds)
    } catch (error) {
      this.#log.warn({ err: error }, 'the traffic of the cards could not be read')
      return new Map()
    }
  }

  async #look({ record, vmm }: UsageSubject, traffic: ReadonlyMap<string, CardTraffic>): Promise<ObservedUsage | null> {
    try {
      const [used, allocated] = await Promise.all([vmm?.usage(), this.#driver.diskAllocated(record.id)])
      if (used === undefined) return null
      const card = traffic.get(record.nic?.tap ?? '') ?? noTraffic
      return { id: record.id, at: this.#now(), ...used, disk_allocated_bytes: allocated, ...card }
    } catch (error) {
      // it may have ended meanwhile
      this.#log.debug({ err: error, instance_id: record.id }, 'the use of an instance could not be read')
      return null
    }
  }
}
