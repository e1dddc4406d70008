import type { Timers } from '../sys/timers.ts'

/** What a worker waits on between its acts: something has happened, or a time is over. */
export class WakeUp {
  readonly #timers: Timers
  readonly #stopping: AbortSignal
  #wake: () => void = () => {}
  #called = true

  constructor(timers: Timers, stopping: AbortSignal) {
    this.#timers = timers
    this.#stopping = stopping
    stopping.addEventListener('abort', () => this.call())
  }

  /** Something has happened: the next pause does not begin, or the one that is under way ends. */
  call(): void {
    this.#called = true
    this.#wake()
  }

  /** All that has happened until now is taken in. */
  clear(): void {
    this.#called = false
  }

  /** Wait for a call, at most so long; null for as long as it takes. */
  async pause(ms: number | null): Promise<void> {
    if (this.#called || this.#stopping.aborted) return
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wake = resolve
    const end = ms === null ? null : this.#timers.after(Math.max(0, ms), resolve)
    await promise
    end?.()
    this.#wake = () => {}
  }
}
