import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'

const root = process.getuid?.() === 0
if (!root) console.warn('!!!! tests of a full disk NOT RUN: they mount a tmpfs, which needs root !!!!')

/** Run a scenario of full-disk-process.ts where its mounts reach nobody else; gives what it saw, throws when it failed. */
function onSmallDisk(scenario: string): unknown {
  const own = [process.execPath, join(import.meta.dirname, 'full-disk-process.ts'), scenario]
  const options = { encoding: 'utf8' as const, timeout: 120_000, killSignal: 'SIGKILL' as const }
  const run = spawnSync('unshare', ['--mount', '--propagation', 'private', '--', ...own], options)
  const last = run.stdout.trimEnd().split('\n').at(-1) ?? ''
  if (run.status !== 0)
    throw new Error(`${scenario} ended with ${run.status ?? run.signal}: ${run.stderr.slice(-4000)}`)
  return JSON.parse(last)
}

describe.skipIf(!root)('a disk that fills up', () => {
  test('gives 507 for writes, serves reads, loses nothing acknowledged and recovers by itself', () => {
    const seen = onSmallDisk('everything') as { answers: Record<string, number>; cpuTicksIn3s: number }
    // no other answer was given, and both were
    expect(Object.keys(seen.answers).sort()).toEqual(['201', '507 storage_full'])
    expect(seen).toMatchObject({ acknowledged: seen.answers['201'], states: { running: seen.answers['201'] } })
    expect(seen.cpuTicksIn3s).toBeLessThan(100) // a third of one processor: nothing spins
  })

  test('is no hindrance to stops and deletes, which end while it stays full; all else is told what to do', () => {
    const seen = onSmallDisk('deletes') as { instances: number; detail: string }
    expect(seen).toMatchObject({
      again: 507,
      start: 507,
      detail: expect.stringMatching(
        /^The disk .* is full \(0 MiB are free\); nothing was changed\. Instances can still be stopped/,
      ),
      ends: { succeeded: seen.instances },
      states: { stopped: 1, terminated: seen.instances - 1 },
      later: 201,
    })
    expect(seen.instances).toBeGreaterThanOrEqual(12)
  }, 120_000)

  test('under the ledger alone: the agent lives on and does what was asked when there is room', () => {
    const seen = onSmallDisk('ledger') as { waiting: Record<string, number> }
    expect(seen.waiting.provisioning).toBeGreaterThan(0)
    expect(seen).toMatchObject({ states: { running: 40 } })
  })

  test.each(['image', 'disk', 'network', 'start'])(
    'while an instance is started (%s): the start goes on when there is room, and is no failure of the instance',
    (point) => {
      const seen = onSmallDisk(point)
      // a machine that runs already is written down all the same
      const whenFull = point === 'start' ? expect.stringMatching(/^(provisioning|running)$/) : 'provisioning'
      expect(seen).toEqual({ whenFull, state: 'running', operation: 'succeeded' })
    },
    120_000,
  )
})
