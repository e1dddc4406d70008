import { expect, test } from 'vitest'
import { desiredInstance } from '../testing/desired-instance.ts'
import { testNic } from '../testing/nic.ts'
import { gatewayFor, isSameNic, type Nic, nicOf } from './nic.ts'

const network = {
  vpc_id: 'vpc-a',
  cidr: '10.0.0.0/16',
  subnets: [{ id: 'subnet-a', cidr: '10.0.0.0/24', gateway: '10.0.0.1' }],
}
const wanted = (changes: Parameters<typeof desiredInstance>[0] = {}) => {
  return nicOf('abc123', desiredInstance(changes), '10.0.0.1', 1_900_000_000)
}

test.each([
  { hostname: 'db' },
  { public_ip: '203.0.113.7' },
  { bandwidth_mbps: 2000 },
  { security_groups: [] },
  { security_groups: ['sg-default', 'sg-web'] },
])('a card is another when %j is asked for', (changes) => {
  expect(isSameNic(wanted(), wanted(changes))).toBe(false)
})

test('a card is the same whatever is asked for that is not of it', () => {
  expect(
    isSameNic(wanted(), wanted({ generation: 7, grace_seconds: 1, reboots: { count: 3, grace_seconds: 1 } })),
  ).toBe(true)
  expect(isSameNic(wanted(), JSON.parse(JSON.stringify(wanted())))).toBe(true) // as the ledger gives it back
})

test('every field of a card is compared', () => {
  const card = testNic(1)
  for (const field of Object.keys(card) as (keyof Nic)[]) expect(isSameNic(card, { ...card, [field]: 'x' })).toBe(false)
})

test('the gateway is that of the subnet, where it is described', () => {
  expect(gatewayFor(desiredInstance(), network)).toBe('10.0.0.1')
  expect(gatewayFor(desiredInstance({ subnet_id: 'subnet-b' }), network)).toBeNull()
  expect(gatewayFor(desiredInstance(), null)).toBeNull()
})
