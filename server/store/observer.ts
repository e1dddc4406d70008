import type { StoredOperation } from './schema.ts'

/** One commit that went through. */
export interface CommitFacts {
  /** Writes of callers that it made durable, and those it left out because their callers refused them. */
  kept: number
  rolledBack: number
  /** From the begin of the transaction to its end, and the part after the last write; milliseconds. */
  transactionMs: number
  commitMs: number
  /** `instance.updated`, one an event. */
  events: readonly string[]
}

/**
 * Hears of what the store has done, for figures and logs. It is told after the commit, so nothing it hears of can be
 * undone; it must be quick. What it throws becomes a warning of the process and harms nobody.
 */
export interface StoreObserver {
  committed(facts: CommitFacts): void
  /** A commit was lost with the writes of this many callers; all of them were told. */
  commitFailed(writes: number): void
  operationOpened(operation: StoredOperation): void
  operationEnded(operation: StoredOperation): void
}

/** Nobody who listens. */
export const unobserved: StoreObserver = {
  committed() {},
  commitFailed() {},
  operationOpened() {},
  operationEnded() {},
}

/** Hears of the schema being brought up to date when a database is opened. */
export interface MigrationObserver {
  /** What takes longer is told, and again after the same time; milliseconds, 10 s unless given. */
  longMs?: number
  /** It is not done after so long; `waiting`: another server is at it, or writes. */
  migrating(durationMs: number, waiting: boolean): void
  /** Migrations were run. */
  migrated(names: readonly string[], durationMs: number): void
}
