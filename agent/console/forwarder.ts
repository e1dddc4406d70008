import { consoleChunkBytes, consoleLogKeptBytes } from '@berth/contract/hosts/agent-protocol.ts'
import type { Logger } from 'pino'
import type { InstanceRecord } from '../instance/record.ts'
import { backOff, type Chance, type Link } from '../report/server-link.ts'
import { pause } from '../sys/timers.ts'
import type { SerialFollower } from './serial-follower.ts'
import { TokenBucket } from './token-bucket.ts'

/** Serial output goes to the server at most this often, milliseconds. */
const everyMs = 1000

/**
 * Output of one instance that goes to the server: so many bytes a second, and what the server keeps all at once. A boot is
 * less than that; a guest that writes without end would otherwise make everybody's commits slow.
 */
const rate = { perSecond: 32 * 1024, burst: consoleLogKeptBytes }

/** Positions left out that are no output: the log says itself what happened there (`HostDriver.breakSerial`). */
const breakBytes = 2 ** 30

/** A log up to this is sent without asking first what the server has of it. */
const shortLogBytes = 4096

/** An instance as the forwarder sees it. */
export interface SerialSource {
  record: Pick<InstanceRecord, 'power'>
  serial: Pick<SerialFollower, 'end' | 'read' | 'settled' | 'skipTo'>
}

/** Hands new serial output of all instances to the server. Where to go on is the server's word, so nothing doubles. */
export class ConsoleForwarder {
  readonly #link: Pick<Link, 'console'>
  readonly #workers: ReadonlyMap<string, SerialSource>
  readonly #chance: Chance
  readonly #log: Logger
  readonly #positions = new Map<string, number>()
  readonly #budgets = new Map<string, TokenBucket>()
  readonly #busy = new Map<string, Promise<void>>()
  #failures = 0

  constructor(link: Pick<Link, 'console'>, workers: ReadonlyMap<string, SerialSource>, chance: Chance, log: Logger) {
    this.#link = link
    this.#workers = workers
    this.#chance = chance
    this.#log = log
  }

  async run(signal: AbortSignal): Promise<void> {
    let failedRounds = 0
    while (!signal.aborted) {
      const before = this.#failures
      await Promise.all([...this.#workers.keys()].map((id) => this.#inTurn(id, { paced: true })))
      for (const id of this.#budgets.keys()) if (!this.#workers.has(id)) this.#forget(id)
      failedRounds = this.#failures > before ? failedRounds + 1 : 0
      // a server that is away or whose disk is full is not asked for every instance every second
      if (failedRounds > 2) await backOff(failedRounds, this.#chance, signal)
      else await pause(this.#chance.timers, everyMs, signal)
    }
  }

  /** Hand over what there is of an instance, at once. A failure is logged; the next round tries again. */
  flush(id: string): Promise<void> {
    return this.#inTurn(id, { paced: false })
  }

  #inTurn(id: string, options: { paced: boolean }): Promise<void> {
    const before = this.#busy.get(id) ?? Promise.resolve()
    const mine = before
      .then(() => this.#forward(id, options))
      .catch((error) => {
        this.#failures++
        this.#positions.delete(id) // ask again where to go on
        this.#log.debug({ err: error, instance_id: id }, 'serial output was not handed over')
      })
    this.#busy.set(id, mine)
    void mine.then(() => {
      if (this.#busy.get(id) === mine) this.#busy.delete(id)
    })
    return mine
  }

  #forget(id: string): void {
    this.#positions.delete(id)
    this.#budgets.delete(id)
  }

  async #forward(id: string, { paced }: { paced: boolean }): Promise<void> {
    const worker = this.#workers.get(id)
    if (worker === undefined || worker.record.power === 'absent') return
    const { serial } = worker
    let position = this.#positions.get(id)
    if (position === undefined) {
      position = await this.#begin(id, worker)
      if (position > serial.end) await serial.settled() // it may only not have been read yet
      if (position > serial.end) await serial.skipTo(position)
    }
    for (;;) {
      this.#positions.set(id, position)
      // the server keeps only the end: what is longer ago than that is not worth sending
      const { offset, data } = await serial.read(Math.max(position, serial.end - consoleLogKeptBytes))
      const budget = this.#budgetOf(id)
      const bytes = Math.min(data.length, paced ? budget.available : data.length)
      if (bytes === 0) return
      budget.take(bytes)
      const note = noteOf(offset - position)
      const sent = Buffer.concat([note, data.subarray(0, Math.min(bytes, consoleChunkBytes - note.length))])
      position = await this.#link.console(id, offset - note.length, sent)
    }
  }

  #budgetOf(id: string): TokenBucket {
    const known = this.#budgets.get(id)
    if (known !== undefined) return known
    const budget = new TokenBucket(rate, () => this.#chance.timers.elapsedMs())
    this.#budgets.set(id, budget)
    return budget
  }

  /**
   * Where to begin. A short log is handed over whole, as that of an instance that has just started is: the server leaves
   * out what it has and says where it wants to go on.
   */
  async #begin(id: string, worker: SerialSource): Promise<number> {
    const { offset, data } = await worker.serial.read(0)
    return data.length <= shortLogBytes ? offset : this.#link.console(id, 0, Buffer.alloc(0))
  }
}

/** What the server is given in the place of output that is left out; it takes the last bytes of that place. */
function noteOf(leftOutBytes: number): Buffer {
  const note = Buffer.from(`\r\n[berth: ${leftOutBytes} bytes of output are left out here]\r\n`)
  return leftOutBytes < note.length || leftOutBytes >= breakBytes ? Buffer.alloc(0) : note
}
