import { expect, test } from 'vitest'
import { expectGolden } from '../../test/golden.ts'
import { testNic } from '../testing/nic.ts'
import { renderShapingLine, renderTapLines } from './taps.ts'

test('the commands for a tap that is new, and for one that is there', () => {
  expectGolden(import.meta.dirname, 'tap-new.ip', `${renderTapLines(testNic(1), false).join('\n')}\n`)
  expectGolden(import.meta.dirname, 'tap-there.ip', `${renderTapLines(testNic(1), true).join('\n')}\n`)
})

test.each([
  [0, 'qdisc replace dev vt000000000001 root pfifo_fast'],
  [1, 'qdisc replace dev vt000000000001 root tbf rate 1mbit burst 131072 latency 50ms'],
  [1000, 'qdisc replace dev vt000000000001 root tbf rate 1000mbit burst 1250000 latency 50ms'],
])('%i Mbit/s towards a guest', (bandwidth_mbps, line) => {
  expect(renderShapingLine(testNic(1, { bandwidth_mbps }))).toBe(line)
})
