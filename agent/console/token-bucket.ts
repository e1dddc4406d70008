/** How much may pass: `perSecond` in the long run, `burst` at once. */
export interface Rate {
  perSecond: number
  burst: number
}

/** A token bucket: full at first, and filled again as time passes. */
export class TokenBucket {
  readonly #rate: Rate
  readonly #elapsedMs: () => number
  #tokens: number
  #at: number

  /** `elapsedMs` is a monotonic clock. */
  constructor(rate: Rate, elapsedMs: () => number) {
    this.#rate = rate
    this.#elapsedMs = elapsedMs
    this.#tokens = rate.burst
    this.#at = elapsedMs()
  }

  /** What may pass now; whole, not below 0. */
  get available(): number {
    this.#fill()
    return Math.max(0, Math.floor(this.#tokens))
  }

  /** Note that so much has passed. More than is available is made up for before anything else may pass. */
  take(amount: number): void {
    this.#fill()
    this.#tokens -= amount
  }

  #fill(): void {
    const now = this.#elapsedMs()
    const { perSecond, burst } = this.#rate
    this.#tokens = Math.min(burst, this.#tokens + ((now - this.#at) * perSecond) / 1000)
    this.#at = now
  }
}
