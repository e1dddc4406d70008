import { ApiError } from '../api-error.ts'
import type { Store } from '../store/store.ts'
import type { Reader } from '../store/transaction.ts'

/** Counts the clients that wait, each of which costs memory for as long as it likes. */
export class WaitSlots {
  readonly #most: number
  #taken = 0

  constructor(most: number) {
    this.#most = most
  }

  /** Take a slot and give it back when the work is over. Throws too_many_waits when none is free. */
  async hold<T>(work: () => Promise<T>): Promise<T> {
    if (this.#taken >= this.#most) {
      throw new ApiError('too_many_waits', `${this.#most} requests wait already; ask again without waiting, or later.`)
    }
    this.#taken++
    try {
      return await work()
    } finally {
      this.#taken--
    }
  }
}

export interface Wait<T> {
  /** Where a client's wait is counted; a host's is not. */
  slots?: WaitSlots
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
  return wait.slots === undefined ? follow(store, ids, wait) : wait.slots.hold(() => follow(store, ids, wait))
}

async function follow<T>(store: Store, ids: readonly string[], wait: Wait<T>): Promise<T> {
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
