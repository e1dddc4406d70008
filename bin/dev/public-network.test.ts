import { describe, expect, test } from 'vitest'
import { expectAnnouncing, parseInterface, parsePublicPool } from './public-network.ts'

describe('--public-pool', () => {
  test('names one or several, also when it is repeated', () => {
    const first = parsePublicPool('office=203.0.113.0/24')
    expect(first).toEqual([{ name: 'office', cidr: '203.0.113.0/24' }])
    expect(parsePublicPool('a=198.51.100.0/25, b=198.51.100.128/25', first)).toEqual([
      ...first,
      { name: 'a', cidr: '198.51.100.0/25' },
      { name: 'b', cidr: '198.51.100.128/25' },
    ])
  })

  test.each([
    '',
    'office',
    'office=',
    '=203.0.113.0/24',
    'Office=203.0.113.0/24',
    'office=203.0.113.0/24,',
    'office=2001:db8::/64',
    'office 203.0.113.0/24',
    'office=203.0.113.0/24\nx',
    `${'a'.repeat(64)}=203.0.113.0/24`,
  ])('refuses %j', (text) => {
    expect(() => parsePublicPool(text)).toThrow('is not NAME=CIDR')
  })
})

describe('--public-interface', () => {
  test('takes the name of an interface', () => {
    for (const name of ['eth0', 'enp3s0.100', 'br-lan', 'abcdefghijklmno']) expect(parseInterface(name)).toBe(name)
  })

  test.each(['', '-x', 'eth0 dev lo', 'eth0\nlink del eth0', '../eth0', 'abcdefghijklmnop', 'eth0;', '.'])(
    'refuses %j',
    (text) => {
      expect(() => parseInterface(text)).toThrow('name of a network interface')
    },
  )

  test('that the machine does not have is an error', async () => {
    await expect(expectAnnouncing('none0')).rejects.toThrow('no network interface none0')
  })
})
