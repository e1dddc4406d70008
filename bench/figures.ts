/** Milliseconds after the request; `vmm` is when the CPUs began to run. */
export interface BootTimes {
  vmm: number
  kernel: number
  ready: number
}

/** The middle value; the mean of the two middle ones for an even count. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length / 2
  const low = sorted[Math.floor((sorted.length - 1) / 2)]
  const high = sorted[Math.floor(middle)]
  if (low === undefined || high === undefined) throw new RangeError('there is no median of nothing')
  return (low + high) / 2
}
