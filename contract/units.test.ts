import fc from 'fast-check'
import { expect, test } from 'vitest'
import { toRfc3339, toRfc3339Millis } from './units.ts'

/** Milliseconds that a Date can be (https://tc39.es/ecma262/#sec-time-values-and-time-range). */
const maxTimeMs = 8.64e15

test('any time is written as Date writes it, whatever day was asked for before', () => {
  const time = fc.oneof(
    fc.integer({ min: -maxTimeMs, max: maxTimeMs }),
    fc.date({ min: new Date('2026-01-01'), max: new Date('2026-01-03'), noInvalidDate: true }).map(Number),
    fc.constantFrom(0, -1, maxTimeMs, -maxTimeMs, Date.parse('2026-01-02') - 1, Date.parse('2026-01-02')),
  )
  fc.assert(
    fc.property(time, (ms) => {
      const expected = new Date(ms).toISOString()
      expect(toRfc3339Millis(ms)).toBe(expected)
      expect(toRfc3339(ms)).toBe(`${expected.slice(0, -5)}Z`)
    }),
    { numRuns: 2000 },
  )
})

test.each([Number.NaN, Number.POSITIVE_INFINITY, maxTimeMs + 86_400_000])('%d is no time', (ms) => {
  expect(() => toRfc3339Millis(ms)).toThrow(RangeError)
})
