/** Sizes an instance may ask for; a host may be smaller. */
export const sizeLimits = {
  vcpus: { minimum: 1, maximum: 256 },
  memoryMb: { minimum: 64, maximum: 4_194_304 },
  diskGb: { minimum: 1, maximum: 65_536 },
} as const

/** Most bytes of user data, decoded: 64 KiB. */
export const userDataMaxBytes = 64 * 1024
/** What becomes of an instance that no host has room for. */
export const onCapacity = ['queue', 'fail'] as const

/** Seconds a guest gets to shut down after the power button before it is powered off. */
export const graceSeconds = { minimum: 0, maximum: 3600, default: 60, onDelete: 5 } as const

/** What `wait_for` can wait for. */
export const waitTargets = ['running', 'ready', 'stopped', 'terminated'] as const
export type WaitTarget = (typeof waitTargets)[number]
