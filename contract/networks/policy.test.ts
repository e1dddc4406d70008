import { expect, test } from 'vitest'
import { allowingRule, type PolicyGroup, type PolicyRule, policyRule, ruleFault, ruleMatches } from './policy.ts'

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

const everything: PolicyRule = { direction: 'ingress', protocol: 'any', ports: null, remote: { cidr: '0.0.0.0/0' } }
const all = { from: 0, to: 65_535 }

test.each<[Partial<PolicyRule>, string]>([
  [{ remote: { cidr: '0.0.0.0/00' } }, 'write 0.0.0.0/0'],
  [{ remote: { cidr: '010.0.0.0/8' } }, 'write 10.0.0.0/8'],
  [{ remote: { cidr: '192.0.2.1/0' } }, 'the network is 0.0.0.0/0'],
  [{ remote: { cidr: '300.0.0.0/8' } }, 'must be an IPv4 network'],
  [{ ports: all }, 'protocol any has no ports'],
  [{ protocol: 'icmp', ports: all }, 'protocol icmp has no ports'],
  [{ protocol: 'tcp', ports: { from: 81, to: 80 } }, 'are no range'],
])('a rule with %j cannot be put in force, and lets nothing pass', (changes, why) => {
  const rule = { ...everything, ...changes }
  expect(ruleFault(rule)).toContain(why)
  expect(ruleFault(everything)).toBeNull()
  for (const protocol of ['tcp', 'udp', 'icmp'] as const) {
    for (const port of [null, 0, 80, 81, 65_535]) {
      for (const peer of [stranger, { ...stranger, address: '8.0.0.1' }, neighbour]) {
        expect(ruleMatches(rule, { protocol, port }, peer)).toBe(false)
        expect(ruleMatches(everything, { protocol, port }, peer)).toBe(true)
      }
    }
  }
})
