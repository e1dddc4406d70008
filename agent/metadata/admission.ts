import type { MetadataLimits } from './limits.ts'

/** What can be ended to make room. */
interface Connection {
  resetAndDestroy(): unknown
}

interface Share {
  connections: Set<Connection>
  /** Requests it may still make; negative: what it has to catch up with. */
  credit: number
  /** When the credit was worked out. */
  at: number
}

/**
 * Shares one process among the guests of a host, so that none can take it from the others. Each has a number of
 * connections and a rate of its own (a token bucket that can fall into debt: requests that were sent all at once are paid
 * for afterwards). When all connections are taken, one of the guest with the most makes room for a guest with fewer.
 */
export class Admission {
  readonly #limits: MetadataLimits
  readonly #elapsedMs: () => number
  readonly #shares = new Map<string, Share>()
  #connections = 0

  constructor(limits: MetadataLimits, elapsedMs: () => number) {
    this.#limits = limits
    this.#elapsedMs = elapsedMs
  }

  /** Take a guest's connection in; false when it has to be refused. */
  connect(guest: string, connection: Connection): boolean {
    const share = this.#share(guest)
    if (!this.#spend(share) || share.connections.size >= this.#limits.guestConnections) return false
    if (this.#connections >= this.#limits.connections && !this.#makeRoom(share.connections.size)) return false
    share.connections.add(connection)
    this.#connections++
    return true
  }

  /** A connection has ended. */
  disconnect(guest: string, connection: Connection): void {
    if (this.#shares.get(guest)?.connections.delete(connection)) this.#connections--
  }

  /** Count a request; false when the guest asks for more than its rate. */
  request(guest: string): boolean {
    return this.#spend(this.#share(guest))
  }

  /** End the connections of a guest. */
  destroy(guest: string): void {
    for (const connection of this.#shares.get(guest)?.connections ?? []) this.#end(guest, connection)
  }

  /** Forget guests that are owed nothing and owe nothing. */
  prune(): void {
    for (const [guest, share] of this.#shares) {
      this.#refill(share)
      if (share.connections.size === 0 && share.credit === this.#limits.burst) this.#shares.delete(guest)
    }
  }

  /** Guests that are remembered. */
  get size(): number {
    return this.#shares.size
  }

  #end(guest: string, connection: Connection): void {
    this.disconnect(guest, connection) // now: the notice of its end comes later
    connection.resetAndDestroy() // nothing that waits to be sent reaches the next holder of the address
  }

  /** End the oldest connection of the guest that has the most, when those are more than `held` and one. */
  #makeRoom(held: number): boolean {
    let greediest: string | null = null
    let most = held + 1
    for (const [guest, { connections }] of this.#shares) {
      if (connections.size <= most) continue
      greediest = guest
      most = connections.size
    }
    const [oldest] = greediest === null ? [] : (this.#shares.get(greediest)?.connections ?? [])
    if (greediest === null || oldest === undefined) return false
    this.#end(greediest, oldest)
    return true
  }

  #spend(share: Share): boolean {
    this.#refill(share)
    share.credit = Math.max(share.credit - 1, -this.#limits.debt)
    return share.credit >= 0
  }

  #refill(share: Share): void {
    const now = this.#elapsedMs()
    const earned = ((now - share.at) / 1000) * this.#limits.perSecond
    share.credit = Math.min(share.credit + earned, this.#limits.burst)
    share.at = now
  }

  #share(guest: string): Share {
    const existing = this.#shares.get(guest)
    if (existing !== undefined) return existing
    const share = { connections: new Set<Connection>(), credit: this.#limits.burst, at: this.#elapsedMs() }
    this.#shares.set(guest, share)
    return share
  }
}
