import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { expectGolden } from '../../test/golden.ts'
import type { Nic } from '../instance-record.ts'
import { renderRuleset } from './ruleset.ts'

const nic = (number: number): Nic => ({
  tap: `vt00000000000${number}`,
  mac: `06:00:00:00:00:0${number}`,
  ip: `10.0.1.${number + 3}`,
  gateway: '10.0.1.1',
  hostname: `web-${number}`,
  uid: 1_900_000_000 + number,
})

test('a VPC without a card lets nothing pass', () => {
  expectGolden(import.meta.dirname, 'ruleset-empty.nft', renderRuleset([]))
})

test('one card', () => {
  expectGolden(import.meta.dirname, 'ruleset-one.nft', renderRuleset([nic(1)]))
})

test('three cards', () => {
  expectGolden(import.meta.dirname, 'ruleset-three.nft', renderRuleset([nic(1), nic(2), nic(3)]))
})

test('the order of the cards makes no difference', () => {
  const cards = [nic(1), nic(2), nic(3)]
  expect(renderRuleset([nic(3), nic(1), nic(2)])).toBe(renderRuleset(cards))
  expect(cards.map((card) => card.tap)).toEqual([nic(1).tap, nic(2).tap, nic(3).tap]) // not sorted in place
})

test('every base chain drops by default, and everything is flushed before it is filled', () => {
  const text = renderRuleset([nic(1)])
  const hooks = text.split('\n').filter((line) => line.includes('hook'))
  expect(hooks.length).toBe(5)
  for (const hook of hooks) expect(hook).toContain('policy drop;')
  for (const set of text.matchAll(/^add element (\S+ \S+ \S+) /gm)) {
    expect(text.search(new RegExp(`^flush (set|map) ${set[1]}$`, 'm'))).toBeLessThan(set.index)
    expect(text.search(new RegExp(`^flush (set|map) ${set[1]}$`, 'm'))).toBeGreaterThan(0)
  }
})

const nft = (ruleset: string) =>
  spawnSync('unshare', ['--net', 'nft', '-c', '-f', '-'], { input: ruleset, encoding: 'utf8' })

test.skipIf(nft('').status !== 0)('nft reads it', () => {
  for (const cards of [[], [nic(1)], [nic(1), nic(2), nic(3)]]) {
    expect(nft(renderRuleset(cards))).toMatchObject({ status: 0, stderr: '' })
  }
})
