import type { DesiredInstance } from '@berth/contract/hosts/agent-protocol.ts'
import { describe, expect, test } from 'vitest'
import { desiredInstance } from '../testing/desired-instance.ts'
import { graceOf, type InstanceSituation, planInstance } from './plan.ts'

const now = 1_000_000

function desired(power: DesiredInstance['power'], changes: Partial<DesiredInstance> = {}): DesiredInstance {
  return desiredInstance({
    generation: 5,
    power,
    grace_seconds: 7,
    reboots: { count: 2, grace_seconds: 9 },
    ...changes,
  })
}

const calm: InstanceSituation = {
  vmm: 'none',
  removed: false,
  off_cause: '',
  off_generation: 0,
  reboots: 2,
  failed_generation: null,
  restart_not_before: 0,
  nic_current: true,
  address_stale: false,
  longest_pause_ms: 60_000,
}
const plan = (power: DesiredInstance['power'], seen: Partial<InstanceSituation> = {}) =>
  planInstance(desired(power), { ...calm, ...seen }, now)

const powers = ['running', 'stopped', 'deleted'] as const
const vmms = ['none', 'running', 'shutting_down', 'guest_off'] as const

describe('what to do next', () => {
  const table = {
    running: { none: 'start', running: 'none', shutting_down: 'shutdown', guest_off: 'quit' },
    stopped: { none: 'none', running: 'shutdown', shutting_down: 'shutdown', guest_off: 'quit' },
    deleted: { none: 'remove', running: 'shutdown', shutting_down: 'shutdown', guest_off: 'quit' },
  } as const
  for (const power of powers) {
    for (const vmm of vmms) {
      test(`${power}, VMM ${vmm}: ${table[power][vmm]}`, () => {
        expect(plan(power, { vmm }).kind).toBe(table[power][vmm])
      })
    }
  }

  test("a public address that may be another machine's now is given up while nothing else is to be done", () => {
    const stale = { nic_current: false, address_stale: true } as const
    expect(plan('stopped', stale).kind).toBe('network')
    expect(plan('running', { ...stale, failed_generation: 5 }).kind).toBe('network')
    expect(plan('running', { ...stale, off_cause: 'guest', off_generation: 5 }).kind).toBe('network')
    const crashed = { off_cause: 'crash', off_generation: 5, restart_not_before: now + 1000 } as const
    expect(plan('running', { ...stale, ...crashed }).kind).toBe('network')
    expect(plan('running', stale).kind).toBe('start') // which does it too
    expect(plan('deleted', stale).kind).toBe('remove')
    expect(plan('stopped', { nic_current: false }).kind).toBe('none')
  })

  test('nothing for what is removed, whatever is desired', () => {
    for (const power of powers)
      for (const vmm of vmms) expect(plan(power, { vmm, removed: true })).toEqual({ kind: 'none' })
  })
})

describe('a start', () => {
  test('does not come after the guest went off under this very intent', () => {
    expect(plan('running', { off_cause: 'guest', off_generation: 5 })).toEqual({ kind: 'none' })
    expect(plan('running', { off_cause: 'guest', off_generation: 4 })).toEqual({ kind: 'start' })
  })

  test('does not come after the host gave up under this very intent', () => {
    expect(plan('running', { failed_generation: 5 })).toEqual({ kind: 'none' })
    expect(plan('running', { failed_generation: 4 })).toEqual({ kind: 'start' })
  })

  test('waits after a crash, to the millisecond', () => {
    const crash = { off_cause: 'crash', off_generation: 5 } as const
    expect(plan('running', { ...crash, restart_not_before: now + 1 })).toEqual({ kind: 'wait', untilMs: now + 1 })
    expect(plan('running', { ...crash, restart_not_before: now })).toEqual({ kind: 'start' })
  })

  test('does not wait when a start was asked for since, nor longer than any pause is', () => {
    const pause = { off_cause: 'crash', restart_not_before: now + 1000 } as const
    expect(plan('running', { ...pause, off_generation: 4 })).toEqual({ kind: 'start' })
    // the clock was set back
    const early = { ...pause, off_generation: 5, restart_not_before: now + 3_600_000 }
    expect(plan('running', early)).toEqual({ kind: 'start' })
  })

  test('does not wait for anything but a crash', () => {
    for (const cause of ['', 'host', 'guest'] as const) {
      expect(plan('running', { off_cause: cause, restart_not_before: now + 1000 })).toEqual({ kind: 'start' })
    }
  })

  test('no crash, failure or power-off keeps a delete from removing', () => {
    for (const cause of ['', 'host', 'guest', 'crash'] as const) {
      const seen = { off_cause: cause, off_generation: 5, failed_generation: 5, restart_not_before: now + 1000 }
      expect(plan('deleted', seen)).toEqual({ kind: 'remove' })
      expect(plan('stopped', seen)).toEqual({ kind: 'none' })
    }
  })
})

describe('a reboot', () => {
  test('comes when more were asked for than were carried out', () => {
    expect(plan('running', { vmm: 'running', reboots: 1 })).toEqual({ kind: 'reboot', count: 2, graceSeconds: 9 })
    expect(plan('running', { vmm: 'running', reboots: 0 })).toEqual({ kind: 'reboot', count: 2, graceSeconds: 9 })
    expect(plan('running', { vmm: 'running', reboots: 2 })).toEqual({ kind: 'none' })
    expect(plan('running', { vmm: 'running', reboots: 3 })).toEqual({ kind: 'none' })
  })

  test('is not what a stop or a delete does', () => {
    expect(plan('stopped', { vmm: 'running', reboots: 0 }).kind).toBe('shutdown')
    expect(plan('deleted', { vmm: 'running', reboots: 0 }).kind).toBe('shutdown')
  })
})

test('a guest gets the grace of what is wanted of it', () => {
  expect(graceOf(desired('running'))).toBe(9)
  expect(graceOf(desired('stopped'))).toBe(7)
  expect(graceOf(desired('deleted'))).toBe(7)
  expect(plan('stopped', { vmm: 'running' })).toEqual({ kind: 'shutdown', graceSeconds: 7 })
  expect(plan('deleted', { vmm: 'running' })).toEqual({ kind: 'shutdown', graceSeconds: 7 })
})
