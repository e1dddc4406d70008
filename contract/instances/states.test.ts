import { expect, test } from 'vitest'
import { type DesiredPower, instanceState, instanceStates, observedPowers, permittedActions } from './states.ts'

// the table of the design, in the order of `observed`; the instance is placed
const observed = [null, 'starting', 'running', 'shutting_down', 'off', 'absent'] as const
const table = {
  running: ['provisioning', 'provisioning', 'running', 'provisioning', 'provisioning', 'provisioning'],
  stopped: ['stopped', 'stopping', 'stopping', 'stopping', 'stopped', 'stopped'],
  deleted: ['stopping', 'stopping', 'stopping', 'stopping', 'stopping', 'terminated'],
} as const

const rows = Object.entries(table) as [DesiredPower, readonly string[]][]

test('the table names every power a host can report', () => {
  expect(new Set(observed)).toEqual(new Set([null, ...observedPowers]))
})

test.each(rows)('%s', (desired, states) => {
  expect(observed.map((power) => instanceState(desired, power, true))).toEqual(states)
})

test('only a delete looks at the placement, and only before the first report', () => {
  for (const [desired, states] of rows) {
    observed.forEach((power, index) => {
      const expected = desired === 'deleted' && power === null ? 'terminated' : states[index]
      expect(instanceState(desired, power, false)).toBe(expected)
    })
  }
})

test('there is no other state', () => {
  const states = rows.flatMap(([, row]) => row)
  expect(new Set(states)).toEqual(new Set(instanceStates))
})

test('what is deleted permits nothing and what is stopped no reboot', () => {
  expect(permittedActions).toEqual({ running: ['start', 'stop', 'reboot'], stopped: ['start', 'stop'], deleted: [] })
})
