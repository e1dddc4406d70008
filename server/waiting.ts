import type { Reader, Store } from './store/store.ts'

export interface Wait<T> {
  timeoutMs: number
  signal: AbortSignal
  read: (db: Reader) => Promise<T>
  done: (current: T) => boolean
}

/**
 * Read until `done`, again after each commit that changed one of `ids`, never by polling. Gives the last value read:
 * the caller sees from it whether it was done, timed out or was aborted. Errors of `read` are passed on.
 */
export async function waitForChange<T>(store: Store, ids: readonly string[], wait: Wait<T>): Promise<T> {
  if (wait.timeoutMs <= 0) return wait.read(store.read)
  const watched = new Set(ids)
  let dirty = true
  let wake = () => {}
  const stop = store.onChange((changed) => {
    for (const id of changed) {
      if (!watched.has(id)) continue
      dirty = true
      wake()
      return
    }
  })
  const end = AbortSignal.any([wait.signal, AbortSignal.timeout(wait.timeoutMs)])
  const onEnd = () => wake()
  end.addEventListener('abort', onEnd)
  try {
    for (;;) {
      dirty = false
      const current = await wait.read(store.read)
      if (wait.done(current) || end.aborted) return current
      if (!dirty) {
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
      if (!dirty) return current // the time is over or the caller has gone, and nothing has changed
    }
  } finally {
    end.removeEventListener('abort', onEnd)
    stop()
  }
}
