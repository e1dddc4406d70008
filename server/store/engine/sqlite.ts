import SqliteDatabase from 'better-sqlite3'
import { CompiledQuery } from 'kysely'
import type { ColumnTypes, StoreEngine } from './engine.ts'
import { kyselyOn } from './sqlite-connection.ts'
import { SqliteReserve } from './sqlite-reserve.ts'

/** Migrations in SQLite's words. */
export const sqliteColumnTypes = {
  dialect: 'sqlite',
  integer: 'integer',
  bytes: 'blob',
  serial: 'integer',
  tableOptions: 'strict',
} as const satisfies ColumnTypes

/**
 * `temp_store`: a savepoint keeps what the pages were before, and each caller has one; by default that goes to a file as
 * soon as it is more than 64 KiB, which a single create is (https://sqlite.org/tempfiles.html#statement_journal_files).
 */
const writerPragmas = [
  'journal_mode = WAL',
  'synchronous = FULL',
  'foreign_keys = OFF',
  'busy_timeout = 5000',
  'temp_store = MEMORY',
]

const begin = CompiledQuery.raw('begin immediate')
const commit = CompiledQuery.raw('commit')
const rollback = CompiledQuery.raw('rollback')

/**
 * Open the file, making it when absent. `synchronous=FULL` with WAL: a commit is on disk before it is answered
 * (https://sqlite.org/pragma.html#pragma_synchronous). All writes go through one connection, reads through another and
 * do not wait for them.
 */
export function openSqlite(file: string, options: { keepsReserve?: boolean } = {}): StoreEngine {
  const writer = new SqliteDatabase(file)
  for (const pragma of writerPragmas) writer.pragma(pragma)
  const reader = new SqliteDatabase(file)
  for (const pragma of ['query_only = ON', 'busy_timeout = 5000']) reader.pragma(pragma)
  const writing = kyselyOn(writer)
  const reading = kyselyOn(reader)
  return {
    name: 'sqlite',
    reserve: options.keepsReserve === true ? new SqliteReserve(writer, file) : null,
    reader: reading,
    async migrate(work) {
      const value = await work(writing, null)
      // off until here: a migration that makes a table anew must not delete what refers to it
      // (https://sqlite.org/lang_altertable.html#otheralter)
      writer.pragma('foreign_keys = ON')
      return value
    },
    async transaction(work) {
      await writing.executeQuery(begin)
      try {
        const value = await work(writing)
        await writing.executeQuery(commit)
        return value
      } catch (error) {
        // SQLITE_FULL and others have ended it already
        if (writer.inTransaction) await writing.executeQuery(rollback)
        throw error
      }
    },
    async waitLess() {}, // the lock of the whole file is the only one, and a transaction has it
    async close() {
      writer.close()
      reader.close()
    },
  }
}
