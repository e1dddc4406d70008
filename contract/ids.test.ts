import { expect, test } from 'vitest'
import { base32, chosenIdPattern, generatedIdPattern, newId, pathIdPattern } from './ids.ts'

const prefixes = ['inst', 'op', 'vpc', 'subnet', 'sg', 'key', 'host'] as const

test('an id has its prefix and 20 characters, and fits wherever its kind is asked for', () => {
  for (const prefix of prefixes) {
    const id = newId(prefix, Date.now())
    for (const pattern of [generatedIdPattern(prefix), pathIdPattern, chosenIdPattern(prefix)]) {
      expect(id).toMatch(new RegExp(pattern))
    }
  }
})

test('ids made in one millisecond are unique and in order', () => {
  const now = Date.now() + 1000
  const ids = Array.from({ length: 20_000 }, () => newId('inst', now))
  expect(new Set(ids).size).toBe(ids.length)
  expect([...ids].sort()).toEqual(ids)
})

test('ids stay in order when the clock steps back, and when it jumps', () => {
  const now = Date.now() + 10_000
  const ids = [0, -3_600_000, 1, -1, 86_400_000, 0, 5].map((step) => newId('op', now + step))
  expect([...ids].sort()).toEqual(ids)
})

test('ids of another time sort by it', () => {
  const far = Date.now() + 200 * 86_400_000
  const ids = Array.from({ length: 100 }, (_, i) => newId('vpc', far + i * 977))
  expect([...ids].sort()).toEqual(ids)
})

test('a chosen id cannot be another kind, a path, or too long', () => {
  const pattern = new RegExp(chosenIdPattern('vpc'))
  for (const id of ['vpc-a', 'vpc-abc123', 'vpc-a-b', `vpc-${'a'.repeat(58)}`]) expect(id).toMatch(pattern)
  for (const id of [
    'vpc-',
    'vpc',
    'sg-a',
    'vpc-A',
    'vpc-a-',
    'vpc--a',
    'vpc-a.b',
    'vpc-a/b',
    `vpc-${'a'.repeat(59)}`,
    'vpc-a\n',
    ' vpc-a',
  ]) {
    expect(id).not.toMatch(pattern)
  }
})

test('base32 gives the lowest digits, most significant first', () => {
  expect(base32(0n, 3)).toBe('000')
  expect(base32(31n, 2)).toBe('0z')
  expect(base32(32n, 2)).toBe('10')
  expect(base32(32n ** 3n + 1n, 3)).toBe('001')
  expect(base32(2n ** 64n - 1n, 12)).toBe('zzzzzzzzzzzz')
})
