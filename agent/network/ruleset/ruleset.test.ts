import { spawnSync } from 'node:child_process'
import type { PolicyGroup } from '@berth/contract/networks/policy.ts'
import { expect, test } from 'vitest'
import { expectGolden } from '../../../test/golden.ts'
import { testNic } from '../../testing/nic.ts'
import { type RulesetPlan, rulesetOf } from './ruleset.ts'
import { namesOf, renderChange, renderRuleset } from './text.ts'

const anywhere = { cidr: '0.0.0.0/0' }
const web: PolicyGroup = {
  id: 'sg-web',
  rules: [
    { direction: 'ingress', protocol: 'tcp', ports: { from: 80, to: 80 }, remote: anywhere },
    { direction: 'ingress', protocol: 'udp', ports: { from: 5000, to: 5010 }, remote: { cidr: '192.0.2.0/24' } },
    { direction: 'egress', protocol: 'any', ports: null, remote: anywhere },
  ],
}
const database: PolicyGroup = {
  id: 'sg-db',
  rules: [
    { direction: 'ingress', protocol: 'tcp', ports: { from: 5432, to: 5432 }, remote: { security_group: 'sg-web' } },
    { direction: 'ingress', protocol: 'icmp', ports: null, remote: { security_group: 'sg-ops' } },
    { direction: 'ingress', protocol: 'tcp', ports: { from: 0, to: 65_535 }, remote: { cidr: '10.9.0.0/16' } },
    { direction: 'egress', protocol: 'udp', ports: null, remote: { security_group: 'sg-db' } },
  ],
}
const cidr = '10.0.0.0/16'
const empty: RulesetPlan = { cidr, nics: [], groups: [] }
const one: RulesetPlan = { cidr, nics: [testNic(1)], groups: [web] }
const many: RulesetPlan = {
  cidr,
  nics: [
    testNic(1, { public_ip: '203.0.113.7' }),
    testNic(2, { security_groups: ['sg-db', 'sg-web'], bandwidth_mbps: 2000 }),
    testNic(3, { security_groups: [], bandwidth_mbps: 0 }),
    testNic(4, { security_groups: ['sg-unknown'] }),
  ],
  groups: [web, database],
}

const render = (plan: RulesetPlan, before?: RulesetPlan) =>
  renderRuleset(rulesetOf(plan), before && namesOf(rulesetOf(before)))

test('a VPC without a card lets nothing pass', () => {
  expectGolden(import.meta.dirname, 'ruleset-empty.nft', render(empty))
})

test('one card', () => {
  expectGolden(import.meta.dirname, 'ruleset-one.nft', render(one))
})

test('cards with several groups, none, unknown ones, public addresses and bandwidths', () => {
  expectGolden(import.meta.dirname, 'ruleset-many.nft', render(many))
})

test('a rule that cannot be put in force is left out, and the others of its group stay', () => {
  const bad = { direction: 'ingress', protocol: 'any', ports: null, remote: { cidr: '10.0.0.0/08' } } as const
  const first = { ...web, rules: [bad, ...web.rules] }
  const last = { ...web, rules: [...web.rules, { ...bad, direction: 'egress' as const }] }
  for (const group of [first, last]) expect(render({ ...one, groups: [group] })).toBe(render(one))
})

test('what an earlier ruleset had and this one has not goes in the same transaction', () => {
  expectGolden(import.meta.dirname, 'ruleset-shrunk.nft', render(one, many))
})

const change = (from: RulesetPlan, to: RulesetPlan) => renderChange(rulesetOf(from), rulesetOf(to))

test('a card more brings its own chains and elements alone', () => {
  expectGolden(import.meta.dirname, 'change-card-more.nft', change(many, { ...many, nics: [...many.nics, testNic(5)] }))
})

test('a card less takes what it alone had', () => {
  const nics = many.nics.filter(({ security_groups: groups }) => !groups.includes('sg-db'))
  expectGolden(import.meta.dirname, 'change-card-less.nft', change(many, { ...many, nics }))
})

test('other rules of a group change the chains of that group alone', () => {
  const groups = [{ ...web, rules: web.rules.slice(1) }, database]
  expectGolden(import.meta.dirname, 'change-rules.nft', change(many, { ...many, groups }))
})

test('equal rulesets need no change, and one of another network is loaded whole', () => {
  expect(change(many, many)).toBe('')
  const moved = { ...many, cidr: '10.1.0.0/16' }
  expect(change(many, moved)).toBe(render(moved, many))
})

test('the order of cards and groups makes no difference', () => {
  const turned = { ...many, nics: [...many.nics].reverse(), groups: [...many.groups].reverse() }
  expect(render(turned)).toBe(render(many))
})

test('every filtering base chain drops by default, and everything is flushed before it is filled', () => {
  const text = render(many)
  const filters = text
    .split('\n')
    .filter((line) => line.includes('type filter hook') && !line.includes('priority -150'))
  expect(filters.length).toBe(5)
  for (const filter of filters) expect(filter).toContain('policy drop;')
  for (const set of text.matchAll(/^add element (\S+ \S+ \S+) /gm)) {
    const flush = text.search(new RegExp(`^flush (set|map) ${set[1]}$`, 'm'))
    expect(flush, set[1]).toBeGreaterThan(0)
    expect(flush, set[1]).toBeLessThan(set.index)
  }
})

const nft = (input: string) => spawnSync('unshare', ['--net', 'nft', '-f', '-'], { input, encoding: 'utf8' })

test.skipIf(nft('').status !== 0)('nft loads it, also over another one and over itself', () => {
  const steps: [RulesetPlan, RulesetPlan?][] = [[empty], [many, empty], [many, many], [one, many], [empty, one]]
  // one transaction: each step is what the kernel is left with by the one before
  const script = steps.map(([plan, before]) => render(plan, before)).join('')
  const { status, stderr } = nft(script)
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
})
