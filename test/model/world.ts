import type { Observed } from '@berth/contract/hosts/agent-protocol.ts'
import type { WaitTarget } from '@berth/contract/instances/bounds.ts'
import { capacities, hostIds, type Resources } from './fixtures.ts'
import { HostProcess } from './host-process.ts'
import { brokenInvariants } from './invariants.ts'
import { Keys } from './keys.ts'
import type { Witness } from './mortal-host.ts'
import { Promises } from './promises.ts'
import { ServerProcess } from './server-process.ts'
import type { Tables } from './tables.ts'
import { VirtualTime, WallClock } from './virtual-time.ts'
import { Wire } from './wire.ts'

/** A wait of a client for an instance. */
export interface OpenWait {
  id: string
  target: WaitTarget
}

/** When the second host connects for the first time. */
export type SecondHost = 'at once' | 'late' | 'never'

const immediate = () => new Promise<void>((resolve) => setImmediate(resolve))

/** Turns after which something that should have ended has not. */
const mostTurns = 10_000

/** One server, two hosts, what lies between, and the model that watches them. */
export class World {
  readonly time = new VirtualTime()
  readonly serverClock = new WallClock(this.time)
  readonly server: ServerProcess
  readonly hosts: readonly [HostProcess, HostProcess]
  readonly keys = new Keys((what) => this.violation(what), this.serverClock.now)
  readonly promises = new Promises(
    (what) => this.violation(what),
    this.keys,
    (id) => this.hosts.some((host) => host.machine.vmmOf(id) !== null),
  )
  readonly waits = new Set<OpenWait>()
  /** The report of each host that the server took last. */
  readonly reports = new Map<string, Observed>()
  readonly second: SecondHost
  /** Calls of clients that are not answered yet, but for waits; and how often one began while another was not. */
  underWay = 0
  overlap = 0
  readonly #timers = this.time.scope()
  readonly #violations: string[] = []
  #checked = 0

  constructor(resources: Resources, options: { second: SecondHost; console: boolean }) {
    this.second = options.second
    this.server = new ServerProcess(this.time, this.serverClock, resources)
    const host = (index: 0 | 1) => {
      const id = hostIds[index]
      const wire = new Wire(id, this.server, this.time.scope(), {
        accepted: (hostId, observed) => this.#accepted(hostId, observed),
        violation: (what) => this.violation(what),
      })
      wire.console = options.console
      const ledgerFile = resources.newLedger()
      return new HostProcess({
        id,
        time: this.time,
        wire,
        ledgerFile,
        capacity: capacities[index],
        witness: this.#witness(),
      })
    }
    this.hosts = [host(0), host(1)]
  }

  async start(): Promise<void> {
    await this.server.start()
    this.hosts[0].start()
    if (this.second === 'at once') this.hosts[1].start()
    await this.settle()
  }

  /** Let time pass, with everything that it brings. */
  async run(ms: number): Promise<void> {
    await this.time.run(ms, () => this.settle())
  }

  /** Resolves when everything waits for time or for a call; then what is stored is held against the promises. */
  async settle(): Promise<void> {
    let turns = 0
    do {
      await immediate()
      if (++turns > mostTurns) this.violation('the server does not come to rest')
    } while (this.server.busy && turns <= mostTurns)
    if (this.server.commits !== this.#checked || this.promises.isUnchecked) {
      this.#checked = this.server.commits
      const tables = this.tables()
      for (const broken of brokenInvariants(tables, this.hosts)) this.violation(broken)
      this.promises.check(tables, this.serverClock.now())
    }
    this.keys.settled()
    this.promises.settled()
    this.throwViolations()
  }

  /** Nothing passes between a host and the server for a while. */
  cut(host: 0 | 1, ms: number): void {
    const { wire } = this.hosts[host]
    wire.cut = true
    this.#timers.after(ms, () => {
      wire.cut = false
    })
  }

  tables(): Tables {
    return this.server.stored.tables()
  }

  /** Note something that must not be; it is thrown at the next rest, out of the way of the code under test. */
  violation(what: string): void {
    this.#violations.push(what)
  }

  throwViolations(): void {
    if (this.#violations.length > 0) throw new Error(`broken: ${this.#violations.join('\n        ')}`)
  }

  /** End everything; `inOrder` says that the schedule came to its end. */
  async close(inOrder: boolean): Promise<void> {
    for (const host of this.hosts) host.close()
    await this.server.close(inOrder)
  }

  #accepted(hostId: string, observed: Observed): void {
    const before = this.reports.get(hostId)
    const newer =
      before === undefined ||
      observed.agent_session > before.agent_session ||
      (observed.agent_session === before.agent_session && observed.sequence > before.sequence)
    if (!newer) this.violation(`an old report of ${hostId} was taken`)
    this.reports.set(hostId, observed)
  }

  #killsOf(hostId: string): number {
    return this.hosts.find((host) => host.id === hostId)?.kills ?? 0
  }

  #witness(): Witness {
    return {
      started: (hostId, instance) => {
        this.promises.started(instance.id, instance.generation, this.#killsOf(hostId))
        const row = this.server.stored.instance(instance.id)
        if (row === null || row.terminated_at !== null) this.violation(`${instance.id} is gone and was started`)
        else if (row.host_id !== hostId) this.violation(`${instance.id} of ${row.host_id} was started on ${hostId}`)
      },
      startedTwice: (hostId, id) => this.violation(`${id} was started twice on ${hostId}`),
      quitting: (hostId, id, generation, guest) => {
        if (guest === 'off') return
        const row = this.server.stored.instance(id)
        if (row?.generation === generation) this.violation(`${id} was stopped on ${hostId} and nobody wanted that`)
      },
      removing: (hostId, id) => {
        const row = this.server.stored.instance(id)
        if (row !== null && row.desired !== 'deleted') this.violation(`${id} was removed from ${hostId}`)
      },
    }
  }
}
