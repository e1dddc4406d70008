import { rmSync } from 'node:fs'
import { defaultAgentSettings } from '@berth/agent/config.ts'
import { Ledger } from '@berth/agent/ledger.ts'
import { runAgent } from '@berth/agent/main.ts'
import { type FaultPoint, SimulatedHost } from '@berth/agent/simulated/host.ts'
import { Registry } from 'prom-client'
import { silent } from './fixtures.ts'
import { MortalHost, type Witness } from './mortal-host.ts'
import { type TimerScope, type VirtualTime, WallClock } from './virtual-time.ts'
import type { Wire } from './wire.ts'

/** A ledger that an agent writes until it is killed; what it does afterwards reaches no disk. */
class MortalLedger extends Ledger {
  readonly #mayWrite: () => boolean

  constructor(file: string, mayWrite: () => boolean) {
    super(file)
    this.#mayWrite = mayWrite
  }

  override saveDesired(desired: Parameters<Ledger['saveDesired']>[0]): void {
    if (this.#mayWrite()) super.saveDesired(desired)
  }

  override flush(): void {
    if (this.#mayWrite()) super.flush()
  }

  override removeRecord(id: string): void {
    if (this.#mayWrite()) super.removeRecord(id)
  }
}

interface Run {
  dead: boolean
  timers: TimerScope
  ledger: Ledger
  /** Writes to the ledger until it is killed; null: it is not to be killed by that. */
  savesLeft: number | null
}

/** A host: the machine with its VMs, which stay, and the agent on it, which comes and goes. */
export class HostProcess {
  readonly id: string
  readonly machine: SimulatedHost
  readonly clock: WallClock
  readonly wire: Wire
  readonly #time: VirtualTime
  readonly #timers: TimerScope
  readonly #ledgerFile: string
  readonly #registry = new Registry()
  readonly #witness: Witness
  readonly #releases = new Set<() => void>()
  #run: Run | null = null
  #kills = 0

  constructor(options: {
    id: string
    time: VirtualTime
    wire: Wire
    ledgerFile: string
    capacity: { vcpus: number; memory_mb: number; disk_gb: number }
    witness: Witness
  }) {
    this.id = options.id
    this.wire = options.wire
    this.#time = options.time
    this.#timers = options.time.scope()
    this.#ledgerFile = options.ledgerFile
    this.#witness = options.witness
    this.clock = new WallClock(options.time)
    this.machine = new SimulatedHost({
      capacity: options.capacity,
      timers: this.#timers,
      stepMs: 20,
      guestBootMs: 300,
      guestShutdownMs: 400,
    })
  }

  get running(): boolean {
    return this.#run !== null
  }

  /** How often its agent was killed. */
  get kills(): number {
    return this.#kills
  }

  /** Start the agent, unless it runs. */
  start(): void {
    if (this.#run !== null) return
    const timers = this.#time.scope()
    const run: Run = { dead: false, timers, ledger: this.#openLedger(() => this.#mayWrite(run)), savesLeft: null }
    this.#run = run
    const mortal = new MortalHost(this.id, this.machine, this.#witness, () => run.dead)
    const connect = () => this.wire.connect(timers)
    const parts = { ledger: run.ledger, connect, now: this.clock.now, timers, random: () => 0.5 }
    runAgent(
      { ...parts, settings: { ...defaultAgentSettings, usageEveryMs: null }, registry: this.#registry },
      mortal,
      silent,
    )
  }

  /** The agent is gone as by SIGKILL and comes back after a while; VMs run on. */
  kill(downMs: number): void {
    const run = this.#run
    if (run === null) return
    this.#run = null
    this.#kills++
    run.dead = true
    run.timers.end()
    run.ledger.close()
    this.machine.abandonWork()
    this.#timers.after(downMs, () => this.start())
  }

  /** The agent is killed when it has written to its ledger so often, before it writes once more. */
  killAtSave(saves: number, downMs: number): void {
    if (this.#run === null) return
    this.#run.savesLeft = saves
    this.#downMs = downMs
  }
  #downMs = 0

  /** The machine loses its power and comes up again. */
  restart(downMs: number): void {
    this.kill(downMs)
    this.machine.restart()
  }

  /** Calls at a point hang for a while. */
  hang(point: FaultPoint, ms: number): void {
    const release = this.machine.hold(point)
    const end = () => {
      this.#releases.delete(end)
      release()
    }
    this.#releases.add(end)
    this.#timers.after(ms, end)
  }

  /** Nothing hangs, gets lost or is away any more. */
  heal(): void {
    for (const release of [...this.#releases]) release()
    if (this.#run !== null) this.#run.savesLeft = null
    this.wire.cut = false
    this.wire.reportFates.length = 0
    this.wire.answerFates.length = 0
  }

  close(): void {
    this.#timers.end()
    const run = this.#run
    this.#run = null
    if (run !== null) {
      run.dead = true
      run.timers.end()
      run.ledger.close()
    }
    for (const end of ['', '-wal', '-shm']) rmSync(`${this.#ledgerFile}${end}`, { force: true })
  }

  #openLedger(mayWrite: () => boolean): Ledger {
    return new MortalLedger(this.#ledgerFile, mayWrite)
  }

  #mayWrite(run: Run): boolean {
    if (run.dead) return false
    if (run.savesLeft === null) return true
    if (run.savesLeft-- > 0) return true
    this.kill(this.#downMs)
    return false
  }
}
