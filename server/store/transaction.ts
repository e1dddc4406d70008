import type { Kysely } from 'kysely'
import type { Change } from './change.ts'
import type { StoreObserver } from './observer.ts'
import type { Database } from './schema.ts'

/** Reads: a Kysely over the tables. Inside `Store.write` it sees the caller's own writes. */
export type Reader = Kysely<Database>

/** One caller's part of a transaction. */
export interface Transaction {
  db: Reader
  /** Note a change that callers can see: it becomes an event of the change feed, in this transaction. */
  changed(change: Change): void
  /** Have hosts fetch what is desired of them again: that has changed. Called where it is stored, and nowhere else. */
  tellHosts(ids: readonly string[]): void
  /** Wake who waits for a resource after the commit, without an event: what callers see of it did not change. */
  wake(resourceId: string): void
  /** Do something once this is committed, and not at all when it is rolled back: it tells, it does not act. */
  afterCommit(tell: (observer: StoreObserver) => void): void
}
