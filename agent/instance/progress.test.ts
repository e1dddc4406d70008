import { describe, expect, test } from 'vitest'
import { defaultAgentSettings } from '../config.ts'
import { InstanceProgress } from './progress.ts'
import { type InstanceRecord, newRecord, upgradeRecord } from './record.ts'
import { silentFrom } from './silence.ts'

const image = {
  id: 'micro',
  title: 'Micro',
  min_disk_gb: 1,
  architecture: 'x86_64',
  default_user: 'root',
  network: 'static',
} as const

/** A record with a clock that is moved by hand. */
function startProgress() {
  const clock = { ms: 1_000_000 }
  const progress = new InstanceProgress(newRecord('inst-00000000000000000000', 0, 'vpc-a'), {
    crash: defaultAgentSettings.crash,
    now: () => clock.ms,
    save: () => {},
    note: () => {},
    events: { attemptFailed() {}, stepEnded() {}, vmmLost() {}, troubled() {} },
  })
  const { record } = progress
  /** One life of a VMM that ends by itself; gives the pause before the next, in milliseconds. */
  const dieAfter = (livedMs: number) => {
    progress.starting(0)
    progress.cpusRun(clock.ms)
    clock.ms += livedMs
    progress.crashed()
    return record.restart_not_before - clock.ms
  }
  return { record, progress, dieAfter, clock }
}

test('a record is written by its progress alone', () => {
  const { record, progress } = startProgress()
  const others = [
    // @ts-expect-error what happened to an instance is told to its progress
    () => (record.power = 'running'),
    // @ts-expect-error
    () => (record.timeline.kernel_at = 1),
    // @ts-expect-error
    () => record.steps.push(),
    // @ts-expect-error
    () => delete record.conditions.Booted,
  ]
  expect(others).toHaveLength(4)
  progress.shuttingDown()
  expect(progress.record).toBe(record)
  expect(record.power).toBe('shutting_down')
})

describe('crashes', () => {
  test('that come quickly double the pause, and the fifth is the last', () => {
    const { record, dieAfter } = startProgress()
    expect([dieAfter(10), dieAfter(10), dieAfter(10), dieAfter(59_999)]).toEqual([1000, 2000, 4000, 8000])
    expect(record.failure).toBeNull()
    dieAfter(10)
    expect(record).toMatchObject({ restarts: 5, failure: { code: 'crash_loop', retryable: true } })
  })

  test('after a minute of life begin the row anew', () => {
    const { record, dieAfter } = startProgress()
    for (let death = 0; death < 4; death++) dieAfter(10)
    expect(dieAfter(60_000)).toBe(1000)
    expect(dieAfter(10)).toBe(1000)
    expect(record).toMatchObject({ restarts: 6, failure: null })
  })

  test('before a start that somebody asked for are no part of the row', () => {
    const { record, progress, dieAfter } = startProgress()
    progress.see(1)
    for (let death = 0; death < 4; death++) dieAfter(10)
    progress.see(2)
    expect(dieAfter(10)).toBe(1000)
    expect(record).toMatchObject({ restarts: 5, failure: null })
  })
})

describe('a step that is resumed', () => {
  test('counts on while it has not succeeded, and begins anew after that', () => {
    const { record, progress } = startProgress()
    progress.resumeStep('shutdown')
    progress.endStep('shutdown', 'failed')
    progress.resumeStep('shutdown')
    expect(progress.step('shutdown')).toMatchObject({ attempt: 2, status: 'running', finished_at: null })
    progress.endStep('shutdown', 'succeeded')
    progress.resumeStep('shutdown')
    expect(progress.step('shutdown')?.attempt).toBe(1)
    expect(record.steps).toHaveLength(1)
  })
})

describe('a guest that powered itself off', () => {
  test('has done so under every later intent that asks for the same power, and under no other', () => {
    const { record, progress } = startProgress()
    progress.see(3)
    progress.off('guest')
    progress.see(4, 3) // the security groups were changed
    expect(record).toMatchObject({ seen_generation: 4, off_generation: 4, off_cause: 'guest' })
    progress.see(5) // somebody asked for a start
    expect(record).toMatchObject({ seen_generation: 5, off_generation: 4 })
    progress.see(6, 5)
    expect(record.off_generation).toBe(4)
  })
})

describe('what a guest says of its first boot', () => {
  const marker = (boot: string, userData: 'ok' | 'failed' = 'ok') => {
    return { boot_id: boot, user_data: userData, exit_code: null, output_tail: '' }
  }
  const boot = (progress: InstanceProgress, at: number) => {
    progress.starting(0)
    progress.booting('host-boot-1', 0)
    progress.cpusRun(at)
  }

  test('counts once, whichever way it is heard first', () => {
    const { record, progress, clock } = startProgress()
    boot(progress, clock.ms)
    expect([progress.guestReady(marker('a')), progress.guestReady(marker('a', 'failed'))]).toEqual([true, false])
    expect(record.conditions.GuestReady?.status).toBe('true')
  })

  test('in an earlier boot counts for nothing, and not after a restart of the agent either', () => {
    const { record, progress, clock } = startProgress()
    boot(progress, clock.ms)
    progress.guestReady(marker('a'))
    clock.ms += 10_000
    progress.guestReady(marker('b')) // the guest restarted itself
    clock.ms += 10_000
    expect(progress.guestReady(marker('a'))).toBe(false)
    progress.off('host')
    boot(progress, clock.ms)
    for (const old of ['a', 'b']) expect(progress.guestReady(marker(old)), old).toBe(false)
    expect(record.conditions.GuestReady?.status).toBe('unknown')
    expect(upgradeRecord(structuredClone(record)).earlier_boot_ids).toEqual(['b', 'a'])
    expect(progress.guestReady(marker('c'))).toBe(true)
  })

  test('is remembered of so many boots only', () => {
    const { record, progress, clock } = startProgress()
    for (let n = 0; n < 50; n++) {
      boot(progress, clock.ms)
      progress.guestReady(marker(`boot-${n}`))
    }
    expect(record.earlier_boot_ids).toHaveLength(16)
    expect(record.earlier_boot_ids[0]).toBe('boot-48')
  })

  test('of a record of an earlier version is read', () => {
    const { earlier_boot_ids: _, ...before } = newRecord('inst-00000000000000000000', 0, 'vpc-a')
    expect(upgradeRecord(before as InstanceRecord).earlier_boot_ids).toEqual([])
  })
})

describe('a guest that says nothing', () => {
  const marker = { boot_id: 'a', user_data: 'none', exit_code: null, output_tail: '' } as const

  test('counts as silent when the time of its image is over, and says for how long', () => {
    const { record, progress, clock } = startProgress()
    progress.starting(0)
    expect(silentFrom(record, 'kvm')).toBeNull()
    progress.cpusRun(clock.ms)
    const start = clock.ms
    expect(silentFrom(record, 'kvm')).toBe(start + 300_000)
    expect(silentFrom(record, 'tcg')).toBe(start + 1_800_000)
    progress.madeFrom({ ...image, ready_timeout_seconds: 20 })
    expect(silentFrom(record, 'none')).toBe(start + 20_000)
    expect(silentFrom(record, 'tcg')).toBe(start + 120_000)
    clock.ms += 20_000
    progress.nothingHeard()
    expect(record.conditions.GuestReady).toMatchObject({ status: 'unknown', reason: 'nothing_heard', at: clock.ms })
    expect(record.conditions.GuestReady?.message).toMatch(/in the 20 s .*console log/)
    // it is said once
    expect(silentFrom(record, 'none')).toBeNull()
  })

  test('is heard when it speaks after all', () => {
    const { record, progress, clock } = startProgress()
    progress.starting(0)
    progress.cpusRun(clock.ms)
    clock.ms += 400_000
    progress.nothingHeard()
    expect(progress.guestReady(marker)).toBe(true)
    expect(record.conditions.GuestReady).toMatchObject({ status: 'true' })
    expect(silentFrom(record, 'kvm')).toBeNull()
  })

  test('has all of its time again in the next boot, and none while it is off', () => {
    const { record, progress, clock } = startProgress()
    progress.starting(0)
    progress.cpusRun(clock.ms)
    progress.nothingHeard()
    progress.off('host')
    expect(record.conditions.GuestReady).toMatchObject({ status: 'unknown', reason: '' })
    expect(silentFrom(record, 'kvm')).toBeNull()
    progress.starting(0)
    progress.cpusRun(clock.ms)
    expect(silentFrom(record, 'kvm')).toBe(clock.ms + 300_000)
  })
})
