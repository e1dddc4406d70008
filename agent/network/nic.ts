import { isDeepStrictEqual } from 'node:util'
import type { DesiredInstance } from '@berth/contract/hosts/agent-protocol.ts'
import { tapName } from '@berth/contract/hosts/names.ts'

/** The network card of an instance, as its VPC's namespace has to know it. */
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

/** Whether a card is what the intent asks for in all that may change while its machine runs. */
export function isCurrent(nic: Nic, instance: DesiredInstance): boolean {
  return (
    nic.hostname === instance.hostname &&
    nic.public_ip === instance.public_ip &&
    nic.bandwidth_mbps === instance.bandwidth_mbps &&
    isDeepStrictEqual(nic.security_groups, instance.security_groups)
  )
}

/** Whether a card has a public address that the intent does not give it. */
export function hasStaleAddress(nic: Nic, instance: DesiredInstance): boolean {
  return nic.public_ip !== '' && nic.public_ip !== instance.public_ip
}
