import { isDeepStrictEqual } from 'node:util'
import type { DesiredInstance, DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import { tapName } from '@berth/contract/hosts/names.ts'

/**
 * The network card of an instance, as its VPC's namespace has to know it. What is wanted is made by `nicOf` alone, what there
 * is was such a value once, and the two are compared whole: a field that is added is compared with the others.
 */
export interface Nic {
  tap: string
  mac: string
  ip: string
  gateway: string
  hostname: string
  uid: number
  /** Security groups that filter its packets; none lets nothing pass. */
  security_groups: readonly string[]
  /** "" for none. */
  public_ip: string
  /** Mbit/s in each direction; 0 is unlimited. */
  bandwidth_mbps: number
}

/** The card that an instance is to have. `gateway` is its subnet's, `uid` that of its VMM. */
export function nicOf(installation: string, instance: DesiredInstance, gateway: string, uid: number): Nic {
  return {
    tap: tapName(installation, instance.id),
    mac: instance.mac,
    ip: instance.private_ip,
    gateway,
    hostname: instance.hostname,
    uid,
    security_groups: instance.security_groups,
    public_ip: instance.public_ip,
    bandwidth_mbps: instance.bandwidth_mbps,
  }
}

/** Whether two cards are the same in everything. */
export function isSameNic(one: Nic, other: Nic): boolean {
  return isDeepStrictEqual(one, other)
}

/** Gateway of the subnet of an instance, or null when its network is not described. */
export function gatewayFor(instance: DesiredInstance, network: DesiredNetwork | null): string | null {
  return network?.subnets.find(({ id }) => id === instance.subnet_id)?.gateway ?? null
}
