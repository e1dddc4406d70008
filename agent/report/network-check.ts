import { mostRepairs, type ObservedRepair } from '@berth/contract/hosts/agent-protocol.ts'
import type { Logger } from 'pino'
import type { HostDriver } from '../host-driver.ts'
import type { Ledger } from '../ledger.ts'
import type { Reconciler } from '../reconcile.ts'
import { pause, type Timers } from '../sys/timers.ts'
import type { AgentMetrics } from './metrics.ts'

/** Time one look may take with all its repairs; what is left is looked at the next time. Milliseconds. */
const lookMs = 5 * 60_000

export interface NetworkCheckOptions {
  driver: HostDriver
  ledger: Ledger
  reconciler: Reconciler
  metrics: AgentMetrics
  periodMs: number
  now: () => number
  timers: Timers
  log: Logger
  /** Something that the server should hear of has changed. */
  onChange: () => void
}

/**
 * Has the host's networks looked at once a period and put right. Each repair has a number that rises for ever and is
 * told of until a report with it was accepted; the ledger keeps both over restarts.
 */
export class NetworkCheck {
  readonly #options: NetworkCheckOptions
  #last: number
  #pending: readonly ObservedRepair[]

  constructor(options: NetworkCheckOptions) {
    this.#options = options
    const { last, pending } = options.ledger.loadRepairs()
    this.#last = last
    this.#pending = pending
  }

  /** The repairs that no accepted report has told of, oldest first. */
  get pending(): readonly ObservedRepair[] {
    return this.#pending
  }

  /** A report with these repairs was accepted. */
  accepted(told: readonly ObservedRepair[]): void {
    const last = told.at(-1)?.number ?? 0
    if (last === 0) return
    this.#pending = this.#pending.filter(({ number }) => number > last)
    this.#save()
  }

  /** Look once a period, until the signal is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { timers, periodMs, log } = this.#options
    for (;;) {
      await pause(timers, periodMs, signal)
      if (signal.aborted) return
      await this.#look(signal).catch((error) => {
        if (!signal.aborted) log.error({ err: error }, 'the networks could not be looked at')
      })
    }
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { driver, reconciler, timers } = this.#options
    const cards = reconciler.cards()
    if (cards.length === 0) return
    const late = new AbortController()
    const end = timers.after(lookMs, () => late.abort())
    try {
      const taps = new Set(cards.map(({ tap }) => tap))
      const { repairs, unattached } = await driver.healNetworks(taps, {
        signal: AbortSignal.any([signal, late.signal]),
      })
      this.#note(repairs)
      reconciler.noteTaps(cards, new Set(unattached))
      reconciler.noteNetworks()
    } finally {
      end()
    }
  }

  #note(repairs: readonly Omit<ObservedRepair, 'number' | 'at'>[]): void {
    if (repairs.length === 0) return
    const { log, metrics, now, onChange } = this.#options
    const fresh = repairs.map((repair): ObservedRepair => ({ number: ++this.#last, at: now(), ...repair }))
    for (const repair of fresh) {
      log.warn(repair, 'something of the network was not as it should be, and was put right')
      metrics.networkRepairs.inc({ object: repair.object })
    }
    this.#pending = [...this.#pending, ...fresh].slice(-mostRepairs)
    this.#save()
    onChange()
  }

  #save(): void {
    try {
      this.#options.ledger.saveRepairs({ last: this.#last, pending: this.#pending })
    } catch (error) {
      this.#options.log.error({ err: error }, 'what was repaired could not be noted') // it is told of all the same
    }
  }
}
