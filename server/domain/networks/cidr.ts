import { reservedAtStart } from '@berth/contract/networks/subnets.ts'
import { Address4 } from 'ip-address'

/** The address ranges a VPC may use (RFC 1918). */
const privateRanges = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16'].map((range) => new Address4(range))

/** What is wrong with a network as a VPC or subnet, or null: canonical form, private, prefix /16 to /28. */
export function cidrFault(cidr: string): string | null {
  const network = parse(cidr)
  if (network === null) return 'must be an IPv4 network such as 10.0.0.0/16'
  if (network.startAddress().correctForm() !== network.correctForm()) {
    return `has bits set behind the prefix; the network is ${network.startAddress().correctForm()}/${network.subnetMask}`
  }
  if (network.subnetMask < 16 || network.subnetMask > 28) return 'must have a prefix between /16 and /28'
  if (!privateRanges.some((range) => network.isInSubnet(range))) {
    return 'must lie in a private range: 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16'
  }
  return null
}

/** What is wrong with a range of addresses in a firewall rule, or null: any IPv4 network in canonical form. */
export function addressRangeFault(cidr: string): string | null {
  const network = parse(cidr)
  if (network === null) return 'must be an IPv4 network such as 203.0.113.0/24 or 0.0.0.0/0'
  if (network.startAddress().correctForm() === network.correctForm()) return null
  return `has bits set behind the prefix; the network is ${network.startAddress().correctForm()}/${network.subnetMask}`
}

/** Whether the network `inner` lies wholly in `outer`. Both are valid. */
export function contains(outer: string, inner: string): boolean {
  return new Address4(inner).isInSubnet(new Address4(outer))
}

/** Whether two networks share an address. Both are valid. */
export function overlap(a: string, b: string): boolean {
  return contains(a, b) || contains(b, a)
}

/** The gateway of a subnet: its first address behind the network address. */
export function gatewayOf(cidr: string): string {
  return dotted(rangeOf(cidr).first + 1)
}

/** Offset of the first address an instance may get. */
export const firstOffset = reservedAtStart

/** The address at an offset from the network address, or null when it is not one that an instance may have. */
export function addressAt(cidr: string, offset: number): string | null {
  const { first, size } = rangeOf(cidr)
  return offset >= firstOffset && offset < size - 1 ? dotted(first + offset) : null
}

/** The ranges asked for last: every create takes an address, most of the same few subnets. */
const ranges = new Map<string, { first: number; size: number }>()
const keptRanges = 1000

/** First address of a network as a number, and how many it has. */
function rangeOf(cidr: string): { first: number; size: number } {
  let range = ranges.get(cidr)
  if (range === undefined) {
    const network = new Address4(cidr)
    range = { first: Number(network.startAddress().bigInt()), size: 2 ** (32 - network.subnetMask) }
    if (ranges.size >= keptRanges) ranges.clear()
    ranges.set(cidr, range)
  }
  return range
}

const dotted = (address: number) => [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.')

/** How many addresses of a subnet instances can have. */
export function usableAddresses(cidr: string): number {
  return 2 ** (32 - new Address4(cidr).subnetMask) - firstOffset - 1
}

function parse(cidr: string): Address4 | null {
  if (!/^\d{1,3}(\.\d{1,3}){3}\/\d{1,2}$/.test(cidr) || !Address4.isValid(cidr)) return null
  return new Address4(cidr)
}
