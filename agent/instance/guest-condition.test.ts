import { describe, expect, test } from 'vitest'
import { parseReadyReport, type ReadyMarker } from '../console/ready-marker.ts'
import { guestCondition } from './guest-condition.ts'

const marker: ReadyMarker = { boot_id: 'b-1', user_data: 'ok', exit_code: 0, output_tail: 'one\n' }

describe('a guest with a script that was built before there were causes', () => {
  test.each([
    [{}, { status: 'true', reason: 'user_data_ok', message: '' }],
    [{ user_data: 'none' }, { status: 'true', reason: '', message: '' }],
    [
      { user_data: 'failed' },
      { status: 'false', reason: 'user_data_failed', message: 'user_data failed with exit code 0: one\n' },
    ],
    [
      { user_data: 'failed', exit_code: null },
      { status: 'false', reason: 'user_data_failed', message: 'user_data failed: one\n' },
    ],
  ] as const)('%j', (fields, condition) => {
    expect(guestCondition({ ...marker, ...fields })).toEqual(condition)
  })
})

test('a cause that is not known here is a failure like any other', () => {
  const condition = guestCondition({ ...marker, user_data: 'failed', exit_code: null, cause: 'bewitched' })
  expect(condition).toMatchObject({ status: 'false', reason: 'user_data_failed' })
})

test('an agent that knows neither cause nor warnings reads the same marks', () => {
  // what an agent asked of a mark before there were those fields: four of its own, and others do not matter
  const ignored = { ...marker, user_data: 'failed', exit_code: null, cause: 'ignored', of_later: { x: 1 } }
  const { cause: _, ...seen } = parseReadyReport(Buffer.from(JSON.stringify(ignored))) as ReadyMarker
  expect(guestCondition(seen)).toMatchObject({ status: 'false', reason: 'user_data_failed' })
})

test('a message has 4,096 characters at most, whatever the guest says', () => {
  const long = { output_tail: 'x'.repeat(4096), warnings: 'y'.repeat(2048) }
  for (const fields of [{ user_data: 'failed' }, { user_data: 'failed', cause: 'ignored' }, {}] as const) {
    const { message } = guestCondition({ ...marker, ...long, ...fields })
    expect(message.length).toBeLessThanOrEqual(4096)
    expect(message.length).toBeGreaterThan(2000)
  }
})

test('a shell tells of a signal by its exit code', () => {
  const message = (code: number) => guestCondition({ ...marker, user_data: 'failed', exit_code: code }).message
  expect(message(137)).toBe('user_data failed with exit code 137 (signal 9): one\n')
  expect(message(128)).toBe('user_data failed with exit code 128: one\n')
  expect(message(255)).toBe('user_data failed with exit code 255: one\n')
})
