import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  contains,
  formatAddress,
  formatNetwork,
  holds,
  lastOf,
  netmaskOf,
  networkFault,
  networkOf,
  overlap,
  parseAddress,
  parseNetwork,
  sizeOf,
} from './cidr.ts'

const addresses = fc.nat(0xffff_ffff)
const networks = fc.tuple(addresses, fc.nat(32)).map(([address, prefixLength]) => {
  const size = 2 ** (32 - prefixLength)
  return { first: address - (address % size), prefixLength }
})

test('every address and network is read from the text it is written as, and has no fault', () => {
  fc.assert(
    fc.property(addresses, networks, (address, network) => {
      expect(parseAddress(formatAddress(address))).toBe(address)
      expect(parseNetwork(formatNetwork(network))).toEqual(network)
      expect(networkFault(formatNetwork(network))).toBeNull()
    }),
  )
})

test('what is read is written as the same text: there is one for each network', () => {
  const digits = fc.string({ unit: fc.constantFrom(...'0123456789./'), maxLength: 20 })
  const padded = networks.chain((network) => {
    const text = formatNetwork(network)
    return fc.nat(text.length).map((at) => `${text.slice(0, at)}0${text.slice(at)}`)
  })
  fc.assert(
    fc.property(fc.oneof(digits, padded, networks.map(formatNetwork)), (text) => {
      const network = parseNetwork(text)
      if (network === null) expect(networkFault(text)).toEqual(expect.any(String))
      else expect(formatNetwork(network)).toBe(text)
    }),
    { numRuns: 1000 },
  )
})

test('a network holds the addresses from its first to its last', () => {
  fc.assert(
    fc.property(networks, networks, addresses, (a, b, address) => {
      const [one, other] = [formatNetwork(a), formatNetwork(b)]
      expect(lastOf(a)).toBe(a.first + sizeOf(a) - 1)
      expect(holds(one, formatAddress(address))).toBe(a.first <= address && address <= lastOf(a))
      expect(holds(one, formatAddress(a.first)) && holds(one, formatAddress(lastOf(a)))).toBe(true)
      expect(overlap(one, other)).toBe(a.first <= lastOf(b) && b.first <= lastOf(a))
      expect(contains(one, other)).toBe(a.first <= b.first && lastOf(b) <= lastOf(a))
    }),
  )
})

test.each([
  ['0.0.0.0/0', '255.255.255.255', true],
  ['10.0.0.0/8', '10.255.255.255', true],
  ['10.0.0.0/8', '11.0.0.0', false],
  ['192.0.2.7/32', '192.0.2.7', true],
  ['192.0.2.7/32', '192.0.2.8', false],
  ['128.0.0.0/1', '127.255.255.255', false],
  ['10.0.0.0/08', '10.0.0.1', false],
  ['0.0.0.0/0', '010.0.0.1', false],
])('%s holds %s: %s', (cidr, address, expected) => {
  expect(holds(cidr, address)).toBe(expected)
})

test.each([
  ['0.0.0.0/0', '0.0.0.0'],
  ['128.0.0.0/1', '128.0.0.0'],
  ['10.0.0.0/16', '255.255.0.0'],
  ['10.0.2.16/28', '255.255.255.240'],
  ['10.0.2.16/32', '255.255.255.255'],
])('the netmask of %s is %s', (cidr, netmask) => {
  expect(netmaskOf(networkOf(cidr))).toBe(netmask)
})

test.each([
  ['10.0.0.0/08', 'has leading zeros, which some programs read as octal; write 10.0.0.0/8'],
  ['010.0.0.0/8', 'has leading zeros, which some programs read as octal; write 10.0.0.0/8'],
  ['001.001.001.002/32', 'has leading zeros, which some programs read as octal; write 1.1.1.2/32'],
  ['0.0.0.0/00', 'has leading zeros, which some programs read as octal; write 0.0.0.0/0'],
  ['10.0.0.0/8000', 'must be an IPv4 network such as'],
  ['10.1.2.3/8', 'has bits set behind the prefix; the network is 10.0.0.0/8'],
  ['192.0.2.1/0', 'has bits set behind the prefix; the network is 0.0.0.0/0'],
  ['192.0.2.1', 'has no prefix; the address alone is 192.0.2.1/32'],
  ['10.0.0.0/33', 'must be an IPv4 network such as'],
  ['10.0.0.0/+8', 'must be an IPv4 network such as'],
  ['10.0.0/8', 'must be an IPv4 network such as'],
  ['10/8', 'must be an IPv4 network such as'],
  ['0x0a.0.0.0/8', 'must be an IPv4 network such as'],
  ['167772160/8', 'must be an IPv4 network such as'],
  ['10.0.0.0/8\n', 'must be an IPv4 network such as'],
  ['10.0.0.0/８', 'must be an IPv4 network such as'],
  ['::ffff:10.0.0.0/104', 'must be an IPv4 network such as'],
  ['', 'must be an IPv4 network such as'],
])('%j is no network: it %s', (text, why) => {
  expect(parseNetwork(text)).toBeNull()
  expect(networkFault(text)).toContain(why)
  expect(() => networkOf(text)).toThrow(TypeError)
})

test.each([
  '',
  '1.2.3',
  '1.2.3.4.5',
  '01.2.3.4',
  '1.2.3.04',
  '256.0.0.1',
  '0x7f.0.0.1',
  '1.2.3.4 ',
  '１.2.3.4',
  '-1.2.3.4',
])('%j is no address', (text) => {
  expect(parseAddress(text)).toBeNull()
})
