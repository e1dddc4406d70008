import { expect, test } from 'vitest'
import { allowingRule, cidrHolds, type PolicyGroup, policyRule, ruleMatches } from './policy.ts'

const web: PolicyGroup = {
  id: 'sg-web',
  rules: [
    { direction: 'egress', protocol: 'any', ports: null, remote: { cidr: '0.0.0.0/0' } },
    { direction: 'ingress', protocol: 'tcp', ports: { from: 80, to: 90 }, remote: { cidr: '10.0.0.0/8' } },
    { direction: 'ingress', protocol: 'icmp', ports: null, remote: { security_group: 'sg-ops' } },
  ],
}
const stranger = { address: '192.0.2.1', groups: new Set<string>() }
const neighbour = { address: '10.1.2.3', groups: new Set(['sg-ops']) }

test.each([
  ['tcp', 80, neighbour, 1],
  ['tcp', 90, neighbour, 1],
  ['tcp', 79, neighbour, null],
  ['tcp', 91, neighbour, null],
  ['tcp', null, neighbour, null],
  ['udp', 80, neighbour, null],
  ['tcp', 80, stranger, null],
  ['icmp', null, neighbour, 2],
  ['icmp', null, stranger, null],
] as const)('%s %s from %o comes in by rule %s', (protocol, port, peer, index) => {
  expect(allowingRule([web], 'ingress', { protocol, port }, peer)?.index ?? null).toBe(index)
})

test('a rule of the other direction lets nothing in, and no group lets nothing in', () => {
  expect(allowingRule([], 'ingress', { protocol: 'tcp', port: 80 }, neighbour)).toBeNull()
  expect(allowingRule([web], 'egress', { protocol: 'udp', port: 9 }, stranger)?.index).toBe(0)
})

test('one port alone is a range of one, none is all of them', () => {
  const rule = { direction: 'ingress', protocol: 'tcp', remote: { cidr: '0.0.0.0/0' }, description: 'x' } as const
  expect(policyRule({ ...rule, port_from: 22 })).toEqual({
    ...web.rules[1],
    ports: { from: 22, to: 22 },
    remote: rule.remote,
  })
  expect(policyRule(rule).ports).toBeNull()
  expect(ruleMatches(policyRule(rule), { protocol: 'tcp', port: null }, stranger)).toBe(true)
})

test.each([
  ['0.0.0.0/0', '255.255.255.255', true],
  ['10.0.0.0/8', '10.255.255.255', true],
  ['10.0.0.0/8', '11.0.0.0', false],
  ['192.0.2.7/32', '192.0.2.7', true],
  ['192.0.2.7/32', '192.0.2.8', false],
  ['128.0.0.0/1', '127.255.255.255', false],
])('%s holds %s: %s', (cidr, address, holds) => {
  expect(cidrHolds(cidr, address)).toBe(holds)
})
