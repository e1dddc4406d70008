import SqliteDatabase from 'better-sqlite3'
import { Kysely, SqliteDialect, sql } from 'kysely'
import type { ColumnTypes, StoreEngine } from './engine.ts'
import type { Database } from './schema.ts'

/** Migrations in SQLite's words. */
export const sqliteColumnTypes = {
  dialect: 'sqlite',
  integer: 'integer',
  bytes: 'blob',
  serial: 'integer',
  tableOptions: 'strict',
} as const satisfies ColumnTypes

/** Statements kept compiled per connection; texts differ by the number of values in `in (…)`. */
const cachedStatements = 500

/**
 * Open the file, making it when absent. `synchronous=FULL` with WAL: a commit is on disk before it is answered
 * (https://sqlite.org/pragma.html#pragma_synchronous). All writes go through one connection, reads through another and
 * do not wait for them.
 */
export function openSqlite(file: string): StoreEngine {
  const writer = new SqliteDatabase(file)
  for (const pragma of ['journal_mode = WAL', 'synchronous = FULL', 'foreign_keys = OFF', 'busy_timeout = 5000']) {
    writer.pragma(pragma)
  }
  const reader = new SqliteDatabase(file)
  for (const pragma of ['query_only = ON', 'busy_timeout = 5000', 'mmap_size = 268435456']) reader.pragma(pragma)
  const writing = new Kysely<Database>({ dialect: new SqliteDialect({ database: withStatementCache(writer) }) })
  const reading = new Kysely<Database>({ dialect: new SqliteDialect({ database: withStatementCache(reader) }) })
  return {
    name: 'sqlite',
    reader: reading,
    writer: writing,
    async transaction(work) {
      await sql`begin immediate`.execute(writing)
      try {
        const value = await work(writing)
        await sql`commit`.execute(writing)
        return value
      } catch (error) {
        // SQLITE_FULL and others have ended it already
        if (writer.inTransaction) await sql`rollback`.execute(writing)
        throw error
      }
    },
    migrated() {
      // off until here: a migration that makes a table anew must not delete what refers to it
      // (https://sqlite.org/lang_altertable.html#otheralter)
      writer.pragma('foreign_keys = ON')
    },
    async close() {
      await Promise.all([writing.destroy(), reading.destroy()])
    },
  }
}

/** Compiling a statement costs more than running it. */
function withStatementCache(database: SqliteDatabase.Database) {
  const statements = new Map<string, SqliteDatabase.Statement<unknown[]>>()
  return {
    close: () => database.close(),
    prepare(text: string) {
      const known = statements.get(text)
      if (known !== undefined) return known
      if (statements.size >= cachedStatements) statements.clear()
      const statement = database.prepare<unknown[]>(text)
      statements.set(text, statement)
      return statement
    },
  }
}
