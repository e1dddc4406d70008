import { type LookupAddress, type LookupOptions, lookup } from 'node:dns'
import { BlockList, isIP, isIPv6, type LookupFunction } from 'node:net'
import { ImageDownloadError } from './image-download-error.ts'

/**
 * Which addresses of this machine and its link image sources may have: none (false), any (true), or exactly those
 * listed. Set by `allow_private_image_sources`.
 */
export type PrivateSources = boolean | readonly string[]

// The IPv4 ranges that are never a source: this machine, its link, nobody and everybody (RFC 6890, RFC 5771).
const forbiddenIpv4 = [
  { range: '0.0.0.0', bits: 8, kind: 'an unspecified' },
  { range: '127.0.0.0', bits: 8, kind: 'a loopback' },
  { range: '169.254.0.0', bits: 16, kind: 'a link-local' },
  { range: '224.0.0.0', bits: 4, kind: 'a multicast' },
  { range: '255.255.255.255', bits: 32, kind: 'a broadcast' },
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
    // BlockList itself sees through IPv4-mapped IPv6 (::ffff:0:0/96).
    list.addSubnet(range, bits, 'ipv4')
    // The other ways to write an IPv4 address in IPv6: NAT64 (RFC 6052), 6to4 (RFC 3056), IPv4-compatible (RFC 4291).
    const hex = hexGroups(range)
    list.addSubnet(`64:ff9b::${hex}`, 96 + bits, 'ipv6')
    list.addSubnet(`2002:${hex}::`, 16 + bits, 'ipv6')
    list.addSubnet(`::${hex}`, 96 + bits, 'ipv6')
    return { list, kind }
  }),
]

function hexGroups(ipv4: string): string {
  const [a = 0, b = 0, c = 0, d = 0] = ipv4.split('.').map(Number)
  return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`
}

/** What makes an address no image source ("a loopback", "a link-local", …), or null when it may be one. Pure. */
export function forbiddenKind(address: string, allowPrivateSources: PrivateSources): string | null {
  if (allowPrivateSources === true) return null
  if (allowPrivateSources !== false && allowPrivateSources.includes(address)) return null
  const family = isIPv6(address) ? 'ipv6' : 'ipv4'
  return forbidden.find(({ list }) => list.check(address, family))?.kind ?? null
}

/**
 * Parse the URL of an image source, or of what it redirects to. Only http and https, no credentials, no forbidden
 * literal address (URL writes every form of IPv4 address as dotted decimals). Throws ImageDownloadError.
 */
export function parseSourceUrl(text: string, allowPrivateSources: PrivateSources, base?: URL): URL {
  const url = URL.parse(text, base)
  // of what is no URL, or one of another kind, nobody knows which part is a secret
  if (url === null) throw new ImageDownloadError('bad_url', 'what is not a URL')
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new ImageDownloadError('bad_url', `a URL of ${url.protocol}; image sources are http or https`)
  }
  if (url.username !== '' || url.password !== '') {
    throw new ImageDownloadError('bad_url', 'a URL with credentials, which that of an image source must not carry')
  }
  const host = url.hostname.replace(/^\[|\]$/g, '')
  if (isIP(host) !== 0) refuseAddress(url.href, host, allowPrivateSources)
  return url
}

/**
 * A `lookup` for node:http that refuses names with a forbidden address among theirs. The connection goes to the very
 * addresses that were checked here, so a name that changes its answer between check and use gains nothing.
 */
export function guardedLookup(url: string, allowPrivateSources: PrivateSources): LookupFunction {
  return (hostname, options, callback) => {
    const all: LookupOptions & { all: true } = { ...options, all: true }
    lookup(hostname, all, (error, addresses: LookupAddress[]) => {
      if (error !== null) return callback(error, '', 0)
      try {
        for (const { address } of addresses) refuseAddress(url, address, allowPrivateSources)
      } catch (refusal) {
        // Always ImageDownloadError; node:http hands it on as the request's error.
        return callback(refusal instanceof Error ? refusal : new Error(String(refusal)), '', 0)
      }
      if (options.all === true) return callback(null, addresses)
      const [first] = addresses
      return callback(null, first?.address ?? '', first?.family ?? 0)
    })
  }
}

function refuseAddress(url: string, address: string, allowPrivateSources: PrivateSources): void {
  const kind = forbiddenKind(address, allowPrivateSources)
  if (kind === null) return
  throw new ImageDownloadError(
    'forbidden_address',
    `GET ${url}: ${address} is ${kind} address; set allow_private_image_sources to download from there`,
  )
}
