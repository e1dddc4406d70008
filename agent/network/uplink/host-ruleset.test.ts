import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { expectGolden } from '../../../test/golden.ts'
import { type HostRulesetPlan, renderHostRuleset } from './host-ruleset.ts'

const none: HostRulesetPlan = { table: 'berth_abc123', uplinks: [], publicAddresses: [], announced: false }
const plain = { ...none, uplinks: ['vu000000000001'] }
const full = {
  ...none,
  uplinks: ['vu000000000002', 'vu000000000001'],
  publicAddresses: ['203.0.113.8', '203.0.113.7'],
  announced: true,
}

test.each([
  ['none', none],
  ['plain', plain],
  ['unannounced', { ...full, announced: false }],
  ['announced', full],
])('the table of a host: %s', (name, plan) => {
  expectGolden(import.meta.dirname, `host-${name}.nft`, renderHostRuleset(plan))
})

test('the order of uplinks and addresses makes no difference', () => {
  const turned = { ...full, uplinks: full.uplinks.toReversed(), publicAddresses: full.publicAddresses.toReversed() }
  expect(renderHostRuleset(turned)).toBe(renderHostRuleset(full))
})

const nft = (script: string, ...more: string[]) =>
  spawnSync('unshare', ['--net', 'nft', '-f', '-', ...more], { input: script, encoding: 'utf8' })

test.skipIf(nft('').status !== 0)('nft loads each over each, and nothing is left of the last one', () => {
  const order = [none, plain, full, full, plain, full, none, none]
  const { status, stdout, stderr } = nft(`${order.map(renderHostRuleset).join('')}list ruleset\n`)
  expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: '', stderr: '' })
})
