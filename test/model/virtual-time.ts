import type { Timers } from '@berth/agent/sys/timers.ts'

interface Entry {
  dueMs: number
  order: number
  then: () => void
}

/** Timers that a process takes with it when it is killed. */
export interface TimerScope extends Timers {
  end(): void
}

/**
 * Time that passes only when the schedule lets it. What falls due at the same moment is called in the order in which it
 * was asked for, so that a schedule runs the same each time.
 */
export class VirtualTime {
  #elapsedMs = 0
  #order = 0
  #entries: Entry[] = []

  get elapsedMs(): number {
    return this.#elapsedMs
  }

  /** Let `ms` pass; `settle` is awaited after each moment at which something happened. */
  async run(ms: number, settle: () => Promise<void>): Promise<void> {
    const untilMs = this.#elapsedMs + ms
    for (;;) {
      const next = this.#entries[0]
      if (next === undefined || next.dueMs > untilMs) break
      this.#elapsedMs = next.dueMs
      const now = this.#entries.filter((entry) => entry.dueMs === next.dueMs)
      for (const entry of now) if (this.#remove(entry)) entry.then()
      await settle()
    }
    this.#elapsedMs = untilMs
  }

  /** Timers that can be ended together. */
  scope(): TimerScope {
    const mine = new Set<Entry>()
    const add = (ms: number, then: () => void): Entry => {
      const entry = { dueMs: this.#elapsedMs + Math.max(0, ms), order: this.#order++, then }
      mine.add(entry)
      this.#insert(entry)
      return entry
    }
    const remove = (entry: Entry): void => {
      mine.delete(entry)
      this.#remove(entry)
    }
    return {
      elapsedMs: () => this.#elapsedMs,
      after(ms, then) {
        const entry = add(ms, () => {
          mine.delete(entry)
          then()
        })
        return () => remove(entry)
      },
      every(ms, then) {
        const again = () => {
          mine.delete(entry)
          entry = add(ms, again)
          then()
        }
        let entry = add(ms, again)
        return () => remove(entry)
      },
      end() {
        for (const entry of [...mine]) remove(entry)
      },
    }
  }

  #insert(entry: Entry): void {
    let at = this.#entries.length
    while (at > 0 && (this.#entries[at - 1]?.dueMs ?? 0) > entry.dueMs) at--
    this.#entries.splice(at, 0, entry)
  }

  #remove(entry: Entry): boolean {
    const at = this.#entries.indexOf(entry)
    if (at >= 0) this.#entries.splice(at, 1)
    return at >= 0
  }
}

/** A clock on the wall: it goes with the time that passes, and can be set. */
export class WallClock {
  #aheadMs = Date.UTC(2027, 0, 1)
  readonly #time: VirtualTime

  constructor(time: VirtualTime) {
    this.#time = time
  }

  readonly now = (): number => Math.floor(this.#aheadMs + this.#time.elapsedMs)

  jump(byMs: number): void {
    this.#aheadMs += byMs
  }
}
