import type { PolicyGroup, PolicyRule } from '@berth/contract/networks/policy.ts'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { findRefusals, ruleKey, withoutRules } from './refusals.ts'

const rule = (port: number): PolicyRule => {
  return { direction: 'ingress', protocol: 'tcp', ports: { from: port, to: port }, remote: { cidr: '0.0.0.0/0' } }
}

/** Groups of rules, one for each of the ports. */
const groupsOf = (...ports: number[][]): PolicyGroup[] =>
  ports.map((each, index) => ({ id: `sg-${index}`, rules: each.map(rule) }))

/** Loads nothing that has a rule for one of these ports, and counts how often it is asked. */
function kernelThatRefuses(...ports: number[]) {
  const kernel = {
    asked: 0,
    check: async (groups: readonly PolicyGroup[]) => {
      kernel.asked++
      const bad = groups.flatMap(({ rules }) => rules).find(({ ports: range }) => ports.includes(range?.from ?? -1))
      return bad === undefined ? null : `port ${bad.ports?.from} is refused`
    },
  }
  return kernel
}

test('exactly the rules that are refused are found, with why', async () => {
  const ports = fc.array(fc.uniqueArray(fc.nat(30), { maxLength: 8 }), { maxLength: 4 })
  const property = fc.asyncProperty(ports, fc.uniqueArray(fc.nat(30), { maxLength: 3 }), async (all, bad) => {
    const groups = groupsOf(...all)
    const { check } = kernelThatRefuses(...bad)
    const found = await findRefusals(groups, check)
    const expected = bad.filter((port) => all.flat().includes(port))
    expect([...found].sort()).toEqual(expected.map((port) => [ruleKey(rule(port)), `port ${port} is refused`]).sort())
    expect(await check(withoutRules(groups, new Set(found.keys())))).toBeNull()
  })
  await fc.assert(property)
})

test('one among thousands takes a dozen looks or two', async () => {
  const ports = Array.from({ length: 4000 }, (_, port) => port)
  const kernel = kernelThatRefuses(1234)
  expect([...(await findRefusals(groupsOf(ports), kernel.check)).keys()]).toEqual([ruleKey(rule(1234))])
  expect(kernel.asked).toBeLessThan(30)
})

test('where very many are refused, the search ends and takes others with them rather than none', async () => {
  const ports = Array.from({ length: 400 }, (_, port) => port)
  const kernel = kernelThatRefuses(...ports.filter((port) => port % 2 === 0))
  const groups = groupsOf(ports)
  const found = await findRefusals(groups, kernel.check)
  expect(kernel.asked).toBeLessThan(100)
  expect(await kernel.check(withoutRules(groups, new Set(found.keys())))).toBeNull()
})

test('rules are not blamed for what is refused without them', async () => {
  expect((await findRefusals(groupsOf([1], [2]), async () => 'no memory')).size).toBe(0)
  expect((await findRefusals([], async () => 'no memory')).size).toBe(0)
})
