/**
 * IPv4 addresses and networks as numbers, and the one form in which they are written: four decimal numbers without leading
 * zeros, networks with the bits behind their prefix clear. Other programs read other forms, each in its way (`010.0.0.0` is
 * 8.0.0.0 to inet_aton(3) and nft(8), which refuses `10.0.0.0/08`), so texts from outside come in by `parseAddress` and
 * `parseNetwork` alone.
 */

/** A network: its lowest address, and how many bits of it are fixed. */
export interface Network {
  readonly first: number
  readonly prefixLength: number
}

/** 0 to 255. */
const octet = '(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])'
const quad = `${octet}(?:[.]${octet}){3}`
const addressPattern = new RegExp(`^${quad}$`)
const networkPattern = new RegExp(`^(${quad})/(3[0-2]|[12]?[0-9])$`)

/** The number of an address, or null when the text is not one in its canonical form. */
export function parseAddress(text: string): number | null {
  return addressPattern.test(text) ? numberOf(text) : null
}

/** The canonical form of an address. */
export function formatAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.')
}

/** The network of a text, or null when it is not one in its canonical form; `networkFault` says why. */
export function parseNetwork(text: string): Network | null {
  const network = parseLoosely(text)
  return network !== null && isAligned(network) ? network : null
}

/** The canonical form of a network. */
export function formatNetwork({ first, prefixLength }: Network): string {
  return `${formatAddress(first)}/${prefixLength}`
}

/** The network of a text that was found to be one before. Throws TypeError for another. */
export function networkOf(cidr: string): Network {
  const network = parseNetwork(cidr)
  if (network === null) throw new TypeError(`${JSON.stringify(cidr)} is no network`)
  return network
}

/** What is wrong with a text as a network, and what would be right, to be put behind the name of a field; or null. */
export function networkFault(text: string, example = '203.0.113.0/24 or 0.0.0.0/0'): string | null {
  const network = parseLoosely(text)
  if (network !== null) {
    if (isAligned(network)) return null
    const { prefixLength } = network
    const aligned = { first: network.first - (network.first % sizeOf(network)), prefixLength }
    return `has bits set behind the prefix; the network is ${formatNetwork(aligned)}`
  }
  if (addressPattern.test(text)) return `has no prefix; the address alone is ${text}/32`
  const short = text.replaceAll(/(?<![0-9])0+(?=[0-9])/g, '')
  if (short !== text && parseLoosely(short) !== null) {
    return `has leading zeros, which some programs read as octal; write ${short}`
  }
  return `must be an IPv4 network such as ${example}`
}

/** How many addresses a network has. */
export function sizeOf({ prefixLength }: Network): number {
  return 2 ** (32 - prefixLength)
}

/** The highest address of a network. */
export function lastOf(network: Network): number {
  return network.first + sizeOf(network) - 1
}

/** The netmask of a network, as an address: 255.255.0.0 of a /16. */
export function netmaskOf(network: Network): string {
  return formatAddress(2 ** 32 - sizeOf(network))
}

/** Whether a network has an address; false when either is none. */
export function holds(cidr: string, address: string): boolean {
  const [network, number] = [parseNetwork(cidr), parseAddress(address)]
  return network !== null && number !== null && number >= network.first && number <= lastOf(network)
}

/** Whether the network `inner` lies wholly in `outer`. Throws TypeError for what is no network. */
export function contains(outer: string, inner: string): boolean {
  const [out, within] = [networkOf(outer), networkOf(inner)]
  return within.first >= out.first && lastOf(within) <= lastOf(out)
}

/** Whether two networks share an address. Throws TypeError for what is no network. */
export function overlap(a: string, b: string): boolean {
  return contains(a, b) || contains(b, a)
}

/** A network whose bits behind the prefix may be set. */
function parseLoosely(text: string): Network | null {
  const [, address, prefixLength] = networkPattern.exec(text) ?? []
  return address === undefined ? null : { first: numberOf(address), prefixLength: Number(prefixLength) }
}

function isAligned(network: Network): boolean {
  return network.first % sizeOf(network) === 0
}

function numberOf(address: string): number {
  return address.split('.').reduce((number, part) => number * 256 + Number(part), 0)
}
