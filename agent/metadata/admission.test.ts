import { describe, expect, test } from 'vitest'
import { Admission } from './admission.ts'
import { defaultMetadataLimits } from './limits.ts'

const limits = { ...defaultMetadataLimits, guestConnections: 3, connections: 6, burst: 10, perSecond: 5, debt: 20 }

function setUp() {
  const clock = { ms: 0 }
  const admission = new Admission(limits, () => clock.ms)
  const ended: string[] = []
  const connection = (name: string) => ({ resetAndDestroy: () => ended.push(name) })
  return { clock, admission, ended, connection }
}

describe('connections', () => {
  test('of one guest are bounded, and one that ends makes room', () => {
    const { admission, connection } = setUp()
    const first = connection('1')
    expect(admission.connect('a', first)).toBe(true)
    expect([2, 3, 4].map((n) => admission.connect('a', connection(String(n))))).toEqual([true, true, false])
    admission.disconnect('a', first)
    admission.disconnect('a', first) // told twice: it counts once
    expect([5, 6].map((n) => admission.connect('a', connection(String(n))))).toEqual([true, false])
  })

  test('of all are bounded: the guest with the most gives its oldest to one with fewer', () => {
    const { admission, ended, connection } = setUp()
    for (const guest of ['a', 'b']) {
      for (const n of [1, 2, 3]) admission.connect(guest, connection(`${guest}${n}`))
    }
    expect(admission.connect('c', connection('c1'))).toBe(true)
    expect(admission.connect('d', connection('d1'))).toBe(true)
    expect(ended).toEqual(['a1', 'b1'])
    expect(admission.connect('c', connection('c2'))).toBe(false) // would only turn it round
    expect(ended).toHaveLength(2)
  })

  test('of an address that goes end at once', () => {
    const { admission, ended, connection } = setUp()
    for (const n of [1, 2]) admission.connect('a', connection(`a${n}`))
    admission.connect('b', connection('b1'))
    admission.destroy('a')
    expect(ended).toEqual(['a1', 'a2'])
  })
})

describe('requests', () => {
  test('come in a burst, then at the rate', () => {
    const { admission, clock } = setUp()
    const taken = (count: number) => Array.from({ length: count }, () => admission.request('a')).filter(Boolean).length
    expect(taken(12)).toBe(10)
    expect(admission.request('b')).toBe(true)
    clock.ms += 2000
    expect(taken(20)).toBe(8) // 10 earned, 2 owed
  })

  test('that were sent all at once are paid for afterwards, up to a bound', () => {
    const { admission, clock, connection } = setUp()
    for (let n = 0; n < 10_000; n++) admission.request('a')
    clock.ms += 3800
    expect(admission.connect('a', connection('1'))).toBe(false)
    clock.ms += 600
    expect(admission.connect('a', connection('2'))).toBe(true)
  })
})

test('guests that ask no more are forgotten once they owe nothing', () => {
  const { admission, clock, connection } = setUp()
  const open = connection('1')
  admission.connect('a', open)
  for (let n = 0; n < 30; n++) admission.request('b')
  admission.prune()
  expect(admission.size).toBe(2)
  clock.ms += 60_000
  admission.prune()
  expect(admission.size).toBe(1)
  admission.disconnect('a', open)
  admission.prune()
  expect(admission.size).toBe(0)
})
