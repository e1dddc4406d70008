/** Random numbers that a seed repeats (mulberry32, https://github.com/cprosche/mulberry32). */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** From 0 up to, but not, `below`. */
  number(below: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return (((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below
  }

  chance(probability: number): boolean {
    return this.number(1) < probability
  }

  pick<T>(items: readonly T[]): T {
    const item = items[Math.floor(this.number(items.length))]
    if (item === undefined) throw new RangeError('there is nothing to pick from')
    return item
  }
}
