import { consoleLogKeptBytes } from '@berth/contract/hosts/agent-protocol.ts'
import type { Logger } from 'pino'
import type { InstanceWorker } from '../instance/worker.ts'
import { backOff, type Chance, type Link } from '../report/server-link.ts'
import { pause } from '../sys/timers.ts'

/** Serial output goes to the server at most this often, milliseconds. */
const everyMs = 1000

/** A log up to this is sent without asking first what the server has of it. */
const shortLogBytes = 4096

/** Hands new serial output of all instances to the server. Where to go on is the server's word, so nothing doubles. */
export class ConsoleForwarder {
  readonly #link: Link
  readonly #workers: ReadonlyMap<string, InstanceWorker>
  readonly #chance: Chance
  readonly #log: Logger
  readonly #positions = new Map<string, number>()
  readonly #busy = new Map<string, Promise<void>>()
  #failures = 0

  constructor(link: Link, workers: ReadonlyMap<string, InstanceWorker>, chance: Chance, log: Logger) {
    this.#link = link
    this.#workers = workers
    this.#chance = chance
    this.#log = log
  }

  async run(signal: AbortSignal): Promise<void> {
    let failedRounds = 0
    while (!signal.aborted) {
      const before = this.#failures
      await Promise.all([...this.#workers.keys()].map((id) => this.flush(id)))
      for (const id of this.#positions.keys()) if (!this.#workers.has(id)) this.#positions.delete(id)
      failedRounds = this.#failures > before ? failedRounds + 1 : 0
      // a server that is away or whose disk is full is not asked for every instance every second
      if (failedRounds > 2) await backOff(failedRounds, this.#chance, signal)
      else await pause(this.#chance.timers, everyMs, signal)
    }
  }

  /** Hand over what there is of an instance. A failure is logged; the next round tries again. */
  flush(id: string): Promise<void> {
    const before = this.#busy.get(id) ?? Promise.resolve()
    const mine = before
      .then(() => this.#forward(id))
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

  async #forward(id: string): Promise<void> {
    const worker = this.#workers.get(id)
    if (worker === undefined || worker.record.power === 'absent') return
    let position = this.#positions.get(id)
    if (position === undefined) position = await this.#begin(id, worker)
    // a guest that floods its serial line is not followed byte by byte: the server keeps only the end
    position = Math.max(position, worker.serial.end - consoleLogKeptBytes)
    for (;;) {
      this.#positions.set(id, position)
      const { offset, data } = await worker.serial.read(position)
      if (data.length === 0) return
      position = await this.#link.console(id, offset, data)
    }
  }

  /**
   * Where to begin. A short log is handed over whole, as that of an instance that has just started is: the server leaves
   * out what it has and says where it wants to go on.
   */
  async #begin(id: string, worker: InstanceWorker): Promise<number> {
    const { offset, data } = await worker.serial.read(0)
    return data.length <= shortLogBytes ? offset : this.#link.console(id, 0, Buffer.alloc(0))
  }
}
