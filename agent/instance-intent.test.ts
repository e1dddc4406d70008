import type { DesiredInstance } from '@berth/contract/host.ts'
import { expect, test } from 'vitest'
import { wantsSamePower } from './instance-intent.ts'
import { desiredInstance } from './testing/desired-instance.ts'

const running = desiredInstance({ generation: 4, reboots: { count: 1, grace_seconds: 60 } })

test('the same power is wanted by the very next intent that neither stops, starts nor reboots', () => {
  const same = (next: Partial<DesiredInstance>, before: Partial<DesiredInstance> = {}) =>
    wantsSamePower({ ...running, ...before }, { ...running, generation: 5, ...next })
  expect(same({})).toBe(true)
  expect(same({ hostname: 'other' })).toBe(true)
  expect(same({ generation: 6 })).toBe(false) // stopped and started again in between, perhaps
  expect(same({ generation: 4 })).toBe(false)
  expect(same({ reboots: { count: 2, grace_seconds: 60 } })).toBe(false)
  expect(same({ power: 'stopped' })).toBe(false)
  expect(same({}, { power: 'stopped' })).toBe(false)
  expect(same({ power: 'stopped' }, { power: 'stopped' })).toBe(false)
})
