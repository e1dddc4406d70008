import type { failureCatalogue } from '@berth/contract/errors.ts'
import { readyTimeoutSeconds } from '@berth/contract/images/bounds.ts'
import type { HostDriver } from '../host-driver.ts'
import type { InstanceRecord } from './record.ts'

/** Reason of `GuestReady` once its deadline has passed without a word. */
export const nothingHeard = 'nothing_heard' satisfies keyof typeof failureCatalogue

/** How much longer a boot may take on a CPU that is emulated: the image says what it needs of a real one. */
const emulatedFactor = 6

/**
 * When a guest that has said nothing of its first boot counts as silent, milliseconds UTC; null while there is no such
 * moment: it runs no boot, has spoken, or counts as silent already. Pure.
 */
export function silentFrom(record: InstanceRecord, accelerator: HostDriver['accelerator']['kind']): number | null {
  const { power, started_at: startedAt, conditions, image } = record
  const { GuestReady: ready } = conditions
  if (power !== 'running' || startedAt === null) return null
  if (ready === undefined || ready.status !== 'unknown' || ready.reason === nothingHeard) return null
  const seconds = image?.ready_timeout_seconds ?? readyTimeoutSeconds.default
  return startedAt + seconds * 1000 * (accelerator === 'tcg' ? emulatedFactor : 1)
}

/** What `GuestReady` says of a guest that was silent for so long, milliseconds. */
export function silenceMessage(ms: number): string {
  return (
    `Nothing was heard of the guest in the ${Math.round(ms / 1000)} s since its CPUs began to run. ` +
    'See the console log for how far it came. It counts as soon as it is heard.'
  )
}
