import { endsBoot } from '@berth/contract/instances/machine-troubles.ts'
import type { CrashPolicy } from '../config.ts'
import type { InstanceRecord } from './record.ts'

/**
 * What of a record another crash changes: the counts, until when a restart waits, and the failure when it was one too many
 * (docs/decisions/0009). Pure.
 */
export function countCrash(
  { started_at: startedAt, restarts, quick_deaths: before, failure, trouble }: InstanceRecord,
  { quickMs, maxQuickDeaths, firstPauseMs }: CrashPolicy,
  now: number,
): Pick<InstanceRecord, 'restarts' | 'quick_deaths' | 'restart_not_before' | 'failure'> {
  const quickDeaths = now - (startedAt ?? now) < quickMs ? before + 1 : 0
  const isLoop = quickDeaths >= maxQuickDeaths
  const what = trouble !== null && endsBoot(trouble.reason) ? 'The guest failed' : 'QEMU ended'
  const message = `${what} within ${quickMs / 1000} s of its start ${maxQuickDeaths} times in a row.`
  return {
    restarts: restarts + 1,
    quick_deaths: isLoop ? 0 : quickDeaths,
    restart_not_before: now + firstPauseMs * 2 ** Math.max(0, quickDeaths - 1),
    failure: isLoop ? { code: 'crash_loop', message, retryable: true } : failure,
  }
}
