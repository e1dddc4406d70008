import { setTimeout as delay } from 'node:timers/promises'
import type { Store } from './store/store.ts'

/** A good answer is given again for so long, so that asking often costs no commits; milliseconds. */
const goodForMs = 1000

/** What a server needs to serve. */
export type ReadinessPart = 'database_read' | 'database_write' | 'process'

/** A part that is not ready, with a text for callers; `error` is the database's own, for the log. */
export interface Unready {
  part: ReadinessPart
  message: string
  error?: unknown
}

/**
 * Whether a server can serve: the database is read and written, each within a bound. Nothing is remembered of a failure,
 * so a server is ready again as soon as its database is. A read or write that hangs is not started a second time: who
 * asks again waits for the same one.
 */
export class Readiness {
  readonly #store: Store
  readonly #boundMs: number
  #stopping = false
  #checking: Promise<Unready[]> | null = null
  #goodUntil = 0
  readonly #running = new Map<ReadinessPart, Promise<void>>()

  constructor(store: Store, boundMs: number) {
    this.#store = store
    this.#boundMs = boundMs
  }

  /** From now on not ready: the server is about to stop. */
  stop(): void {
    this.#stopping = true
  }

  /** The parts that are not ready; empty when it can serve. Answers within twice the bound. */
  async check(): Promise<Unready[]> {
    if (this.#stopping) return [{ part: 'process', message: 'the server is stopping' }]
    if (performance.now() < this.#goodUntil) return []
    this.#checking ??= this.#look().finally(() => {
      this.#checking = null
    })
    return this.#checking
  }

  async #look(): Promise<Unready[]> {
    const parts = [
      await this.#within('database_read', 'the database cannot be read', () => this.#store.canRead()),
      await this.#within('database_write', 'the database cannot be written', () => this.#store.canWrite()),
    ]
    const unready = parts.filter((part) => part !== null)
    if (unready.length === 0) this.#goodUntil = performance.now() + goodForMs
    return unready
  }

  async #within(part: ReadinessPart, message: string, start: () => Promise<void>): Promise<Unready | null> {
    const work = this.#running.get(part) ?? start().finally(() => this.#running.delete(part))
    this.#running.set(part, work)
    const timer = new AbortController()
    const late = delay(this.#boundMs, 'late' as const, { signal: timer.signal, ref: false }).catch(() => null)
    try {
      const outcome = await Promise.race([work, late])
      return outcome === 'late' ? { part, message: `${message} within ${this.#boundMs} ms` } : null
    } catch (error) {
      return { part, message, error }
    } finally {
      work.catch(() => undefined) // it may fail when nobody waits for it any more
      timer.abort()
    }
  }
}
