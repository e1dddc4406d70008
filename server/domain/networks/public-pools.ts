import { lastOf, networkFault, networkOf, overlap } from '@berth/contract/networks/cidr.ts'
import { namePattern } from '@berth/contract/schema.ts'
import type { PublicPoolConfig } from '../../config.ts'
import type { AddressRange } from '../../store/networks/public-ips.ts'

/** A pool of public addresses; `range` has those that may be handed out. */
export interface PublicPool extends PublicPoolConfig {
  range: AddressRange
}

/** Why no address can be had, for people: there is no pool, or none of a pool is free. */
export const noPool = 'This server has no pool of public addresses.'
export const poolIsFull = ({ name, cidr }: PublicPool) => `Pool ${name} (${cidr}) has no free public address.`

/** Most pools of a server. */
const mostPools = 64

/** Networks that are nobody's public ones, and the one that hosts use for their links to the VPCs. */
const unusable: readonly [cidr: string, what: string][] = [
  ['0.0.0.0/8', 'means this network'],
  ['100.64.0.0/10', 'is what hosts use for their links to the VPCs'],
  ['127.0.0.0/8', 'is loopback'],
  ['169.254.0.0/16', 'is link-local'],
  ['224.0.0.0/4', 'is multicast'],
  ['240.0.0.0/4', 'is reserved'],
]

/** The pools of a configuration, in its order. Throws an Error that names the pool and what is wrong with it. Pure. */
export function parsePublicPools(configs: readonly PublicPoolConfig[]): PublicPool[] {
  if (configs.length > mostPools)
    throw new Error(`there are ${configs.length} public pools; at most ${mostPools} can be`)
  const pools: PublicPool[] = []
  for (const { name, cidr } of configs) {
    const fault = poolFault(name, cidr, pools)
    if (fault !== null) throw new Error(`public pool ${name}=${cidr}: ${fault}`)
    pools.push({ name, cidr, range: rangeOf(cidr) })
  }
  return pools
}

function poolFault(name: string, cidr: string, others: readonly PublicPool[]): string | null {
  if (!new RegExp(namePattern).test(name)) return 'its name must be of a-z, 0-9 and -, at most 63 characters'
  if (others.some((other) => other.name === name)) return 'another pool has this name'
  const fault = networkFault(cidr)
  if (fault !== null) return `its range ${fault}`
  if (networkOf(cidr).prefixLength < 16) return 'its range must have a prefix between /16 and /32'
  const clash = unusable.find(([network]) => overlap(network, cidr))
  if (clash !== undefined) return `its range overlaps ${clash[0]}, which ${clash[1]}`
  const other = others.find((candidate) => overlap(candidate.cidr, cidr))
  return other === undefined ? null : `its range overlaps that of pool ${other.name} (${other.cidr})`
}

/** Without the network's own address and broadcast, which a /31 (RFC 3021) and a /32 do not have. */
function rangeOf(cidr: string): AddressRange {
  const network = networkOf(cidr)
  const [first, last] = [network.first, lastOf(network)]
  return network.prefixLength >= 31 ? { first, last } : { first: first + 1, last: last - 1 }
}
