import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { addressAt, firstOffset, gatewayOf, usableAddresses, vpcNetworkFault } from './address-plan.ts'

const text = (address: number) => [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.')
const number = (address: string) => address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)

/** A network that a VPC may have, with the addresses it starts and ends with. */
const networks = fc
  .tuple(fc.constantFrom('10.0.0.0', '172.16.0.0', '192.168.0.0'), fc.integer({ min: 16, max: 28 }), fc.nat(65_535))
  .map(([start, prefix, offset]) => {
    const size = 2 ** (32 - prefix)
    const first = number(start) + Math.floor(offset / size) * size
    return { cidr: `${text(first)}/${prefix}`, first, last: first + size - 1, size }
  })

describe('any valid network', () => {
  test('has no fault, a gateway behind its address, and addresses inside it', () => {
    fc.assert(
      fc.property(networks, ({ cidr, first, last, size }) => {
        expect(vpcNetworkFault(cidr)).toBeNull()
        expect(number(gatewayOf(cidr))).toBe(first + 1)
        expect(usableAddresses(cidr)).toBe(size - 5)
        expect(addressAt(cidr, firstOffset)).toBe(text(first + firstOffset))
        expect(addressAt(cidr, size - 2)).toBe(text(last - 1))
        for (const offset of [-1, 0, 1, 2, 3, size - 1, size, size * 2]) expect(addressAt(cidr, offset)).toBeNull()
      }),
    )
  })

  test('has a fault when a bit behind its prefix is set, which names the network', () => {
    fc.assert(
      fc.property(networks, fc.nat(), ({ cidr, first, size }, more) => {
        const inside = first + 1 + (more % (size - 1))
        const prefix = cidr.split('/')[1]
        expect(vpcNetworkFault(`${text(inside)}/${prefix}`)).toContain(cidr)
      }),
    )
  })
})

test.each([
  '',
  '10.0.0.0',
  '10.0.0.0/',
  '10.0.0.0/16/24',
  '10.0.0.0/016',
  '010.0.0.0/16',
  '10.0.00.0/16',
  '10.0.0.0/15',
  '10.0.0.0/29',
  '10.0.0.0/99',
  '11.0.0.0/16',
  '172.15.0.0/16',
  '172.32.0.0/16',
  '192.169.0.0/16',
  '256.0.0.0/16',
  'ten.0.0.0/16',
  '10.0.0.0/16 ',
  '10.0.0.0/1６',
  'fd00::/48',
])('%j is no network for a VPC', (cidr) => {
  expect(vpcNetworkFault(cidr)).toEqual(expect.any(String))
})
