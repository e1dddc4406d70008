import SqliteDatabase from 'better-sqlite3'
import { Kysely, SqliteDialect } from 'kysely'
import type { ColumnTypes } from './migrations/0001-initial.ts'
import type { Database } from './schema.ts'

/** Migrations in SQLite's words. */
export const sqliteColumnTypes = {
  integer: 'integer',
  bytes: 'blob',
  serial: 'integer',
  tableOptions: 'strict',
} as const satisfies ColumnTypes

/** The two connections of an SQLite store: all writes go through one, reads do not wait for them (WAL). */
export interface SqliteConnections {
  writer: Kysely<Database>
  reader: Kysely<Database>
}

/**
 * Open the file, making it when absent. `synchronous=FULL` with WAL: a commit is on disk before it is answered
 * (https://sqlite.org/pragma.html#pragma_synchronous).
 */
export function openSqlite(file: string): SqliteConnections {
  const writer = new SqliteDatabase(file)
  for (const pragma of ['journal_mode = WAL', 'synchronous = FULL', 'foreign_keys = ON', 'busy_timeout = 5000']) {
    writer.pragma(pragma)
  }
  const reader = new SqliteDatabase(file)
  for (const pragma of ['query_only = ON', 'busy_timeout = 5000', 'mmap_size = 268435456']) reader.pragma(pragma)
  return {
    writer: new Kysely<Database>({ dialect: new SqliteDialect({ database: writer }) }),
    reader: new Kysely<Database>({ dialect: new SqliteDialect({ database: reader }) }),
  }
}
