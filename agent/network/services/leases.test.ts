import { expect, test } from 'vitest'
import { testNic } from '../../testing/nic.ts'
import { parseLeases, staleLeases } from './leases.ts'

const [one, two] = [testNic(1), testNic(2)]

test('leases of IPv4 are read, and lines that say anything else are left out', () => {
  const text = [
    `1795000000 ${one.mac} ${one.ip} * 01:${one.mac}`,
    `1795000001 ${two.mac} ${two.ip} web-1 *`,
    'duid 00:01:00:01:2c:aa',
    `1795000002 ${two.mac} 2001:db8::1 * *`,
    'half a line',
    '',
  ].join('\n')
  expect(parseLeases(text)).toEqual([
    { mac: one.mac, address: one.ip, clientId: `01:${one.mac}` },
    { mac: two.mac, address: two.ip, clientId: '*' },
  ])
})

test('a lease is stale when a card with another MAC has its address, and only then', () => {
  const before = { mac: '06:00:00:00:00:99', address: one.ip, clientId: '*' }
  const own = { mac: two.mac, address: two.ip, clientId: '*' }
  const nobodys = { mac: '06:00:00:00:00:98', address: '10.0.9.9', clientId: '*' }
  expect(staleLeases([before, own, nobodys], [one, two])).toEqual([{ lease: before, nic: one }])
})
