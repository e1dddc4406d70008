import type { HostOrphan, Observed } from '@berth/contract/hosts/agent-protocol.ts'
import { mostHostOrphans } from '@berth/contract/hosts/orphans.ts'
import type { Logger } from 'pino'
import type { HostDriver } from '../host-driver.ts'
import type { KnownObjects } from '../sys/leftovers.ts'
import { pause, type Timers } from '../sys/timers.ts'

/** Time one look may take, milliseconds. */
const lookMs = 60_000

/** The first look of an agent comes this soon, milliseconds: by then it has taken over what runs. */
const firstLookMs = 5000

/** Characters of a name or detail that are told. */
const longestText = 500

export interface OrphanLookOptions {
  driver: HostDriver
  known: () => KnownObjects
  periodMs: number
  timers: Timers
  log: Logger
}

/** Has the host looked at once a period for what nothing explains, and keeps the last finding until it was reported. */
export class OrphanLook {
  readonly #options: OrphanLookOptions
  #finding: { found: HostOrphan[]; atMs: number } | null = null

  constructor(options: OrphanLookOptions) {
    this.#options = options
  }

  /** The last finding, if no accepted report told of it. */
  get pending(): Observed['orphans'] {
    if (this.#finding === null) return undefined
    const { found, atMs } = this.#finding
    return { age_ms: Math.round(this.#options.timers.elapsedMs() - atMs), found }
  }

  /** A report with this finding was accepted. */
  accepted(told: Observed['orphans']): void {
    if (told?.found === this.#finding?.found) this.#finding = null
  }

  /** Look once a period, until the signal is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { timers, periodMs, log } = this.#options
    for (let pauseMs = Math.min(firstLookMs, periodMs); ; pauseMs = periodMs) {
      await pause(timers, pauseMs, signal)
      if (signal.aborted) return
      await this.#look(signal).catch((error) => {
        if (!signal.aborted) log.error({ err: error }, 'the host could not be looked at for what is left over')
      })
    }
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { driver, known, timers, log } = this.#options
    const late = new AbortController()
    const end = timers.after(lookMs, () => late.abort())
    try {
      const found = await driver.findOrphans(known, { signal: AbortSignal.any([signal, late.signal]) })
      if (found.length > 0) log.warn({ orphans: found.slice(0, 20), count: found.length }, 'nothing explains these')
      const told = found.slice(0, mostHostOrphans).map(({ kind, name, detail }) => ({
        kind,
        name: name.slice(0, longestText),
        detail: detail.slice(0, longestText),
      }))
      this.#finding = { found: told, atMs: timers.elapsedMs() }
    } finally {
      end()
    }
  }
}
