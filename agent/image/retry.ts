import { setTimeout as sleep } from 'node:timers/promises'
import { ImageDownloadError, type ImageDownloadErrorCode } from './download-error.ts'

/** When a download is given up. Tests shorten these; the defaults are the design's. */
export interface DownloadLimits {
  /** Attempts per outage. */
  attempts: number
  /** Waits before the second, third, … attempt of an outage; the last one repeats. */
  retryDelaysMs: readonly number[]
  /** An attempt that brought at least this much ends an outage: the next failure counts as its successor's first. */
  progressBytes: number
  /** Attempts in all, however much each brought. */
  totalAttempts: number
  /** Time in all. */
  totalMs: number
  /** Time without a byte. */
  stallMs: number
  maxRedirects: number
  delay: (ms: number, signal: AbortSignal) => Promise<void>
}

export const defaultDownloadLimits: DownloadLimits = {
  attempts: 3,
  retryDelaysMs: [5000, 15_000],
  progressBytes: 1024 * 1024,
  totalAttempts: 50,
  totalMs: 12 * 3_600_000,
  stallMs: 30_000,
  maxRedirects: 5,
  delay: (ms, signal) => sleep(ms, undefined, { signal }),
}

const outages: readonly ImageDownloadErrorCode[] = ['unreachable', 'stalled', 'http_status']

/**
 * Do `work` again after each outage (a retryable error of the network or server), until an outage has had its attempts. `work` is
 * given a function to report the bytes it brings. Throws the last error, saying how often it was tried; any other
 * error, and the signal's reason, at once.
 */
export async function retryOutages<T>(
  limits: DownloadLimits,
  signal: AbortSignal,
  work: (brought: (bytes: number) => void) => Promise<T>,
): Promise<T> {
  let failures = 0
  for (let attempts = 1; ; attempts += 1) {
    let broughtBytes = 0
    try {
      return await work((bytes) => {
        broughtBytes += bytes
      })
    } catch (error) {
      signal.throwIfAborted()
      const outage = error instanceof ImageDownloadError && error.retryable && outages.includes(error.code)
      if (!outage) throw error
      failures = broughtBytes >= limits.progressBytes ? 1 : failures + 1
      if (failures >= limits.attempts || attempts >= limits.totalAttempts) {
        const message = `${error.message} (given up after ${attempts} ${attempts === 1 ? 'attempt' : 'attempts'})`
        throw new ImageDownloadError(error.code, message, { retryable: true, cause: error })
      }
      await limits.delay(limits.retryDelaysMs[failures - 1] ?? limits.retryDelaysMs.at(-1) ?? 0, signal)
    }
  }
}
