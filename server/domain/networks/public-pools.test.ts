import { formatAddress } from '@berth/contract/networks/cidr.ts'
import { describe, expect, test } from 'vitest'
import { parsePublicPools } from './public-pools.ts'

const parse = (cidr: string, ...before: string[]) =>
  parsePublicPools([...before, cidr].map((each, n) => ({ name: `pool-${n}`, cidr: each })))

describe('the pools of a configuration', () => {
  test.each([
    ['203.0.113.0/24', '203.0.113.1', '203.0.113.254', 254],
    ['198.18.0.0/16', '198.18.0.1', '198.18.255.254', 65_534],
    ['192.168.1.248/29', '192.168.1.249', '192.168.1.254', 6],
    ['203.0.113.4/30', '203.0.113.5', '203.0.113.6', 2],
    ['203.0.113.6/31', '203.0.113.6', '203.0.113.7', 2],
    ['223.255.255.255/32', '223.255.255.255', '223.255.255.255', 1],
  ])('%s hands out %s to %s', (cidr, first, last, count) => {
    const [pool] = parse(cidr)
    if (pool === undefined) throw new Error('it has one pool')
    const { range } = pool
    expect([formatAddress(range.first), formatAddress(range.last), range.last - range.first + 1]).toEqual([
      first,
      last,
      count,
    ])
  })

  test('are in the order in which they are given', () => {
    const pools = parsePublicPools([
      { name: 'b', cidr: '203.0.113.0/25' },
      { name: 'a', cidr: '203.0.113.128/25' },
    ])
    expect(pools.map(({ name }) => name)).toEqual(['b', 'a'])
    expect(parsePublicPools([])).toEqual([])
  })

  test.each([
    ['203.0.113.0/15', 'bits set behind the prefix'],
    ['203.0.0.0/15', 'between /16 and /32'],
    ['203.0.113.0/33', 'must be an IPv4 network'],
    ['203.0.113.1/24', 'the network is 203.0.113.0/24'],
    ['203.0.113.0', 'the address alone is 203.0.113.0/32'],
    ['203.0.113/24', 'must be an IPv4 network'],
    ['', 'must be an IPv4 network'],
    ['2001:db8::/32', 'must be an IPv4 network'],
    ['203.0.113.0/24\n', 'must be an IPv4 network'],
    ['100.64.0.0/24', '100.64.0.0/10, which is what hosts use'],
    ['100.127.255.255/32', '100.64.0.0/10'],
    ['127.0.0.0/24', 'loopback'],
    ['169.254.7.0/24', 'link-local'],
    ['224.0.0.0/24', 'multicast'],
    ['239.255.0.0/16', 'multicast'],
    ['240.0.0.0/24', 'reserved'],
    ['255.255.255.255/32', 'reserved'],
    ['0.0.0.0/16', 'this network'],
  ])('%j is an error that says why', (cidr, why) => {
    expect(() => parse(cidr)).toThrow(`public pool pool-0=${cidr}: `)
    expect(() => parse(cidr)).toThrow(why)
  })

  test.each([
    ['203.0.113.0/24', '203.0.113.0/24'],
    ['203.0.113.0/24', '203.0.113.128/25'],
    ['203.0.113.7/32', '203.0.113.0/24'],
  ])('%s beside %s is an error that names both', (first, second) => {
    expect(() => parse(second, '198.51.100.0/24', first)).toThrow(
      `public pool pool-2=${second}: its range overlaps that of pool pool-1 (${first})`,
    )
  })

  test('a name that is taken or is none is an error, and so are more than 64 pools', () => {
    const [a, b] = ['203.0.113.0/25', '203.0.113.128/25']
    expect(() =>
      parsePublicPools([
        { name: 'a', cidr: a },
        { name: 'a', cidr: b },
      ]),
    ).toThrow('another pool has this name')
    for (const name of ['', 'A', '-a', 'a b', 'a\n', 'a'.repeat(64)]) {
      expect(() => parsePublicPools([{ name, cidr: a }])).toThrow('its name must be')
    }
    const many = Array.from({ length: 65 }, (_, n) => ({ name: `p${n}`, cidr: `198.51.100.${n}/32` }))
    expect(parsePublicPools(many.slice(1))).toHaveLength(64)
    expect(() => parsePublicPools(many)).toThrow('at most 64')
  })
})
