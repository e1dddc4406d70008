/**
 * Time that passes, as against `now`, which is what the clock on the wall says and can be set. Given in from above, so
 * that a test can let it pass.
 */
export interface Timers {
  /** Milliseconds of the monotonic clock, from any origin. */
  elapsedMs(): number
  /** Call back once, `ms` from now; gives the function that ends it. */
  after(ms: number, then: () => void): () => void
  /** Call back every `ms`; gives the function that ends it. */
  every(ms: number, then: () => void): () => void
}

/** The timers of this machine. */
export const systemTimers: Timers = {
  elapsedMs: () => performance.now(),
  after(ms, then) {
    const timer = setTimeout(then, ms)
    return () => clearTimeout(timer)
  },
  every(ms, then) {
    const timer = setInterval(then, ms)
    return () => clearInterval(timer)
  },
}

/** Resolves after `ms`, or as soon as the signal is aborted. */
export async function pause(timers: Timers, ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  const { promise, resolve } = Promise.withResolvers<void>()
  const end = timers.after(ms, resolve)
  const onAbort = () => resolve()
  signal.addEventListener('abort', onAbort)
  await promise
  signal.removeEventListener('abort', onAbort)
  end()
}
