import { BlockList, isIP, isIPv6 } from 'node:net'

/**
 * Which addresses of this machine, its link and its instances image sources may have: none (false), any (true), or
 * exactly those listed. Set by `allow_private_image_sources`.
 */
export type PrivateSources = boolean | readonly string[]

// The IPv4 ranges that are never a source: this machine, its link, nobody and everybody (RFC 6890, RFC 5771), and the
// range that the uplinks of VPCs are made of (RFC 6598), where services of the host and of instances answer.
const forbiddenIpv4 = [
  { range: '0.0.0.0', bits: 8, kind: 'an unspecified' },
  { range: '127.0.0.0', bits: 8, kind: 'a loopback' },
  { range: '100.64.0.0', bits: 10, kind: 'a shared' },
  { range: '169.254.0.0', bits: 16, kind: 'a link-local' },
  { range: '224.0.0.0', bits: 4, kind: 'a multicast' },
  { range: '255.255.255.255', bits: 32, kind: 'a broadcast' },
  { range: '240.0.0.0', bits: 4, kind: 'a reserved' },
] as const

const forbiddenIpv6 = [
  { range: '::', bits: 128, kind: 'an unspecified' },
  { range: '::1', bits: 128, kind: 'a loopback' },
  { range: 'fe80::', bits: 10, kind: 'a link-local' },
  { range: 'ff00::', bits: 8, kind: 'a multicast' },
] as const

const forbidden: readonly { list: BlockList; kind: string }[] = [
  ...forbiddenIpv6.map(({ range, bits, kind }) => {
    const list = new BlockList()
    list.addSubnet(range, bits, 'ipv6')
    return { list, kind }
  }),
  ...forbiddenIpv4.map(({ range, bits, kind }) => {
    const list = new BlockList()
    addIpv4(list, range, bits)
    return { list, kind }
  }),
]

/** Add an IPv4 range in all the ways to write it. */
function addIpv4(list: BlockList, range: string, bits: number): void {
  // BlockList itself sees through IPv4-mapped IPv6 (::ffff:0:0/96).
  list.addSubnet(range, bits, 'ipv4')
  // The other ways: NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), IPv4-compatible (RFC 4291), IPv4-translated (RFC 2765).
  const hex = hexGroups(range)
  for (const prefix of ['64:ff9b::', '64:ff9b:1::', '::', '::ffff:0:']) {
    list.addSubnet(`${prefix}${hex}`, 96 + bits, 'ipv6')
  }
  list.addSubnet(`2002:${hex}::`, 16 + bits, 'ipv6')
}

function hexGroups(ipv4: string): string {
  const [a = 0, b = 0, c = 0, d = 0] = ipv4.split('.').map(Number)
  return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`
}

/** What is checked of an address besides what kind it is. */
export interface SourceRules {
  allowPrivateSources: PrivateSources
  /** The addresses that this machine itself has, as text; none where they do not matter. */
  ownAddresses?: readonly string[]
}

/** What makes an address no image source ("a loopback", "a link-local", …), or null when it may be one. Pure. */
export function forbiddenKind(address: string, { allowPrivateSources, ownAddresses = [] }: SourceRules): string | null {
  if (allowPrivateSources === true) return null
  if (allowPrivateSources !== false && allowPrivateSources.includes(address)) return null
  const family = isIPv6(address) ? 'ipv6' : 'ipv4'
  const kind = forbidden.find(({ list }) => list.check(address, family))?.kind
  if (kind !== undefined) return kind
  return listOf(ownAddresses).check(address, family) ? "this host's own" : null
}

function listOf(addresses: readonly string[]): BlockList {
  const list = new BlockList()
  for (const address of addresses) {
    if (isIPv6(address)) list.addAddress(address, 'ipv6')
    else addIpv4(list, address, 32)
  }
  return list
}

/** Why a URL is no image source. */
export interface SourceFault {
  code: 'bad_url' | 'forbidden_address'
  /** Says what it is: "an ftp: URL". Nothing of the URL that may be secret. */
  message: string
}

/**
 * What keeps a URL from being an image source, or null: only http and https, no credentials, no forbidden literal
 * address (URL writes every form of IPv4 address as dotted decimals). What a name leads to, `localhost` aside, is known
 * only when it is looked up. Pure.
 */
export function sourceFault(url: URL, rules: SourceRules): SourceFault | null {
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    return { code: 'bad_url', message: `a URL of ${url.protocol}; image sources are http or https` }
  }
  if (url.username !== '' || url.password !== '') {
    return { code: 'bad_url', message: 'a URL with credentials, which that of an image source must not carry' }
  }
  const host = url.hostname.replace(/^\[|\]$/g, '')
  if (isIP(host) !== 0) return addressFault(host, rules)
  const isLocal = /(?:^|\.)localhost\.?$/.test(host) // RFC 6761, section 6.3
  return isLocal && addressFault('::1', rules) ? addressFault('127.0.0.1', rules) : null
}

/** What keeps an address from being that of an image source, or null. Pure. */
export function addressFault(address: string, rules: SourceRules): SourceFault | null {
  const kind = forbiddenKind(address, rules)
  if (kind === null) return null
  const message = `${address} is ${kind} address; set allow_private_image_sources to download from there`
  return { code: 'forbidden_address', message }
}
