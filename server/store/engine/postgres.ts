import { CompiledQuery, type Kysely } from 'kysely'
import type { Database } from '../schema.ts'
import { type ColumnTypes, codeOf, type StoreEngine } from './engine.ts'
import { PostgresSessions, type SessionTimes } from './postgres-sessions.ts'

/** Migrations in PostgreSQL's words. */
export const postgresColumnTypes = {
  dialect: 'postgres',
  integer: 'bigint',
  bytes: 'bytea',
  serial: 'bigserial',
  tableOptions: '',
} as const satisfies ColumnTypes

/** How long PostgreSQL may take, milliseconds. */
export type PostgresTimes = SessionTimes

const usualTimes: PostgresTimes = {
  connectMs: 5000,
  lockMs: 5000, // more than its deadlock_timeout, after which autovacuum gives way
  statementMs: 10_000,
  answerMs: 15_000, // more than a statement, so that its own word is heard when it has one
  idleInTransactionMs: 10_000,
}

/** Migrations: no statement is stopped. One may not wait long for a lock, since all who use the table then wait behind it. */
const migrationTimes: Partial<PostgresTimes> = {
  lockMs: 30_000,
  statementMs: 0,
  answerMs: 0,
  idleInTransactionMs: 60_000,
}

/** Connections for reads; a write needs one more. */
const readConnections = 8

/** Key of the advisory lock that the one writing transaction holds ("berth" in ASCII). */
const writerLock = 0x6265727468n

/**
 * The isolation is what the rules need: each statement sees what was committed before *it*, so all after the lock see
 * what the writer before has left. A stricter one sees the moment before the lock was waited for
 * (https://www.postgresql.org/docs/current/transaction-iso.html). Both in one round trip.
 */
const begin = CompiledQuery.raw(`begin isolation level read committed; select pg_advisory_xact_lock(${writerLock})`)
const commit = CompiledQuery.raw('commit')
const rollback = CompiledQuery.raw('rollback')
const waitLess = CompiledQuery.raw("set local lock_timeout = '50ms'")
const lockWriters = CompiledQuery.raw(`select pg_advisory_lock(${writerLock})`)
const unlockWriters = CompiledQuery.raw(`select pg_advisory_unlock(${writerLock})`)

/**
 * Connect to PostgreSQL. A writing transaction holds an advisory lock to its end, so that writers of all servers go one
 * after the other, as they do on SQLite: rules that read before they write hold, and the numbers of the change feed are
 * committed in their order (docs/decisions/0018).
 */
export function openPostgres(url: string, times: Partial<PostgresTimes> = {}): StoreEngine {
  const sessions = new PostgresSessions(url)
  const all = { ...usualTimes, ...times }
  const reading = sessions.pool(readConnections, all, 'read only')
  const writing = sessions.pool(1, all)
  return {
    name: 'postgres',
    reserve: null,
    reader: reading,
    async migrate(work) {
      const migrating = sessions.pool(1, { ...all, ...migrationTimes })
      try {
        return await migrating.connection().execute(async (db) => {
          await keepWritersOut(db)
          const value = await work(db, sessions.schema)
          await db.executeQuery(unlockWriters)
          return value
        })
      } finally {
        await migrating.destroy() // which gives the lock up, too
      }
    },
    transaction: (work) =>
      // one connection from begin to commit: were it taken from the pool again, a lost one would go unnoticed
      writing.connection().execute(async (db) => {
        try {
          await db.executeQuery(begin)
          const value = await work(db)
          await commitWhole(db)
          return value
        } catch (error) {
          await db.executeQuery(rollback).catch(() => undefined) // a lost connection has rolled back
          throw error
        }
      }),
    async waitLess(db) {
      await db.executeQuery(waitLess)
    },
    async close() {
      await Promise.all([writing.destroy(), reading.destroy()])
    },
  }
}

/** Take the writers' lock for the session, however long another server holds it: that may be one that migrates. */
async function keepWritersOut(db: Kysely<Database>): Promise<void> {
  for (;;) {
    try {
      await db.executeQuery(lockWriters)
      return
    } catch (error) {
      if (codeOf(error) !== '55P03') throw error
    }
  }
}

/** PostgreSQL answers the COMMIT of a transaction in which a statement had failed with the word ROLLBACK, not an error. */
async function commitWhole(db: Kysely<Database>): Promise<void> {
  const { rows } = await db.executeQuery(commit)
  const [answer] = rows as { command?: string }[]
  if (answer?.command !== 'COMMIT') throw new Error('the transaction was rolled back instead of committed')
}
