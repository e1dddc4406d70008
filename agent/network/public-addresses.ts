import type { DesiredInstance } from '@berth/contract/hosts/agent-protocol.ts'
import type { Nic } from './nic.ts'

/**
 * Who has which public address on this host: the one place that decides it, whom all others ask. Cards are named by their
 * taps, or by whatever the host tells them by. What is known of an address, from what is wanted to what there is:
 *
 *   as the server said last   `hear`    a card that was asked for before an address went to another instance does not take
 *                                       it back, since nobody would notice
 *   as cards were made        `give`    an address is the card's that got it last, and never two cards'; the one before has
 *                                       none from then on, though it is told later
 *   as the kernel has it      `PublicRoutes` follows `ofVpc`, but for what something else on the host leads elsewhere
 */
export class PublicAddresses {
  /** By address, whose it is as the server said. */
  #said: ReadonlyMap<string, string> = new Map()
  /** By card that was made, the address it has, "" for none. */
  readonly #cards = new Map<string, { vpcId: string; address: string }>()
  /** The same the other way round. */
  readonly #holders = new Map<string, string>()
  /** By card, what it had and has no more, until its connections are cut. */
  readonly #left = new Map<string, Set<string>>()

  /** Take whose the addresses are as the server says; of others than these it says nothing. */
  hear(owners: readonly { card: string; address: string }[]): void {
    this.#said = new Map(owners.map(({ card, address }) => [address, card]))
  }

  /** Give a card the address that it asks for, "" for none, and take it from who had it. "" when it is another's by now. */
  give(vpcId: string, card: string, asked: string): string {
    const address = (this.#said.get(asked) ?? card) === card ? asked : ''
    const holder = this.#holders.get(address)
    if (holder !== undefined && holder !== card) this.#set(holder, '')
    this.#cards.set(card, { vpcId, address: this.of(card) })
    this.#set(card, address)
    return address
  }

  /** A card goes. Gives the address that it had. */
  drop(card: string): string {
    const address = this.of(card)
    this.#holders.delete(address)
    this.#cards.delete(card)
    this.#left.delete(card)
    return address
  }

  /** The address of a card; "" for none. */
  of(card: string): string {
    return this.#cards.get(card)?.address ?? ''
  }

  /** Whether a card that was made has this address; one that is not known keeps what it has. */
  keeps(card: string, address: string): boolean {
    return !this.#cards.has(card) || this.of(card) === address
  }

  /** The addresses of the cards of a VPC, sorted. */
  ofVpc(vpcId: string): string[] {
    const held = [...this.#holders].filter(([, card]) => this.#cards.get(card)?.vpcId === vpcId)
    return held.map(([address]) => address).sort()
  }

  /** The addresses of all cards. */
  all(): string[] {
    return [...this.#holders.keys()]
  }

  /** Addresses that a card had and has no more, whose connections are still to be cut. */
  leftBy(card: string): string[] {
    return [...(this.#left.get(card) ?? [])]
  }

  /** The connections of what a card has left are cut. */
  cut(card: string): void {
    this.#left.delete(card)
  }

  #set(card: string, address: string): void {
    const known = this.#cards.get(card)
    if (known === undefined || known.address === address) return
    const left = (this.#left.get(card) ?? new Set()).add(known.address)
    left.delete('')
    left.delete(address)
    this.#left.set(card, left)
    this.#holders.delete(known.address)
    if (address !== '') this.#holders.set(address, card)
    this.#cards.set(card, { ...known, address })
  }
}

/**
 * An instance as it may be attached before the server has spoken in this run of the agent: without a public address that its
 * card has not got, which may be another host's by now. Pure.
 */
export function withHeldAddress(instance: DesiredInstance, nic: Nic | null): DesiredInstance {
  return (nic?.public_ip ?? '') === instance.public_ip ? instance : { ...instance, public_ip: '' }
}
