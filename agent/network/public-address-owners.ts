import type { DesiredInstance } from '@berth/contract/hosts/agent-protocol.ts'

/**
 * Whose the public addresses of this host are, as the server said last. A card that was asked for before an address went
 * to another instance may be made after that one's: it must not take the address back, since nobody would notice.
 */
export class PublicAddressOwners {
  #owners: ReadonlyMap<string, string> = new Map()

  hear(instances: readonly Pick<DesiredInstance, 'id' | 'public_ip'>[]): void {
    this.#owners = new Map(instances.map(({ id, public_ip: address }) => [address, id]))
  }

  /** Whether an address is by now that of another instance than this one. */
  isAnothers(address: string, instanceId: string): boolean {
    const owner = this.#owners.get(address)
    return address !== '' && owner !== undefined && owner !== instanceId
  }
}
