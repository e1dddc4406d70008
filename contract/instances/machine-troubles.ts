/**
 * Why a machine whose process is there does not run its guest, or is not known to: codes of the failure catalogue that
 * become the reason of `Booted` and `GuestReady`, and of the status.
 */
export const machineTroubles = [
  'guest_panicked',
  'internal_error',
  'suspended',
  'paused',
  'io_error',
  'storage_full',
  'unreachable',
] as const
export type MachineTrouble = (typeof machineTroubles)[number]

/** Whether only another boot ends the trouble; what is done then is the instance's `on_panic`. */
export function endsBoot(trouble: MachineTrouble): boolean {
  return trouble === 'guest_panicked' || trouble === 'internal_error'
}

/** Whether a reason is that of a trouble. */
export function isMachineTrouble(reason: string): reason is MachineTrouble {
  return machineTroubles.some((trouble) => trouble === reason)
}

/** What is done with a machine whose boot has ended so: start it again with growing pauses, stop it, or leave it. */
export const panicPolicies = ['restart', 'stop', 'none'] as const
export type PanicPolicy = (typeof panicPolicies)[number]
