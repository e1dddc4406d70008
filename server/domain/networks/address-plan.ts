import {
  contains,
  formatAddress,
  networkFault,
  networkOf,
  parseNetwork,
  sizeOf,
} from '@berth/contract/networks/cidr.ts'
import { reservedAtStart } from '@berth/contract/networks/subnets.ts'

/** The address ranges a VPC may use (RFC 1918). */
const privateRanges = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16']

/** What is wrong with a network as a VPC or subnet, or null: canonical form, private, prefix /16 to /28. */
export function vpcNetworkFault(cidr: string): string | null {
  const network = parseNetwork(cidr)
  if (network === null) return networkFault(cidr, '10.0.0.0/16')
  if (network.prefixLength < 16 || network.prefixLength > 28) return 'must have a prefix between /16 and /28'
  if (!privateRanges.some((range) => contains(range, cidr))) {
    return 'must lie in a private range: 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16'
  }
  return null
}

/** The gateway of a subnet: its first address behind the network address. */
export function gatewayOf(cidr: string): string {
  return formatAddress(networkOf(cidr).first + 1)
}

/** Offset of the first address an instance may get. */
export const firstOffset = reservedAtStart

/** The address at an offset from the network address, or null when it is not one that an instance may have. */
export function addressAt(cidr: string, offset: number): string | null {
  const network = networkOf(cidr)
  return offset >= firstOffset && offset < sizeOf(network) - 1 ? formatAddress(network.first + offset) : null
}

/** How many addresses of a subnet instances can have. */
export function usableAddresses(cidr: string): number {
  return sizeOf(networkOf(cidr)) - firstOffset - 1
}
