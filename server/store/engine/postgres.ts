import { Kysely, PostgresDialect, type PostgresPool, type PostgresPoolClient, sql } from 'kysely'
import pg from 'pg'
import type { Database } from '../schema.ts'
import type { ColumnTypes, StoreEngine } from './engine.ts'

/** Migrations in PostgreSQL's words. */
export const postgresColumnTypes = {
  dialect: 'postgres',
  integer: 'bigint',
  bytes: 'bytea',
  serial: 'bigserial',
  tableOptions: '',
} as const satisfies ColumnTypes

/** Connections for reads; a write needs one more. */
const readConnections = 8

/** How long a connection may take to come about and a statement to answer, milliseconds. */
const connectTimeoutMs = 5000
const statementTimeoutMs = 30_000

/** Key of the advisory lock that the one writing transaction holds ("berth" in ASCII). */
const writerLock = 0x6265727468n

const int8Oid = pg.types.builtins.INT8

/**
 * Connect to PostgreSQL. A writing transaction holds an advisory lock to its end, so that writers of all servers go one
 * after the other, as they do on SQLite: rules that read before they write hold, and the numbers of the change feed are
 * committed in their order (docs/decisions/0018).
 */
export function openPostgres(url: string): StoreEngine {
  const reading = connect(url, readConnections, '-c default_transaction_read_only=on')
  const writing = connect(url, 1)
  return {
    name: 'postgres',
    reserve: null,
    reader: reading,
    writer: writing,
    transaction: (work) =>
      // one connection from begin to commit: were it taken from the pool again, a lost one would go unnoticed
      writing.connection().execute(async (db) => {
        await sql`begin`.execute(db)
        try {
          await sql`select pg_advisory_xact_lock(${sql.lit(writerLock)})`.execute(db)
          const value = await work(db)
          await sql`commit`.execute(db)
          return value
        } catch (error) {
          await sql`rollback`.execute(db).catch(() => undefined) // a lost connection has rolled back
          throw error
        }
      }),
    migrated() {},
    async close() {
      await Promise.all([writing.destroy(), reading.destroy()])
    },
  }
}

function connect(url: string, connections: number, options?: string): Kysely<Database> {
  const pool = new pg.Pool({
    connectionString: url,
    max: connections,
    connectionTimeoutMillis: connectTimeoutMs,
    statement_timeout: statementTimeoutMs,
    idle_in_transaction_session_timeout: statementTimeoutMs,
    application_name: 'berth',
    ...(options === undefined ? {} : { options }),
    types: {
      // every integer here is below 2^53: milliseconds, sizes, counts
      getTypeParser: (oid: number, format?: 'text' | 'binary') =>
        oid === int8Oid ? Number : pg.types.getTypeParser(oid, format as 'text'),
    },
  })
  pool.on('error', () => undefined) // an idle connection was lost; the next query opens another
  // the pool does not listen while a connection is in use; a loss then fails its query, and must not end the process
  pool.on('connect', (client) => client.on('error', () => undefined))
  return new Kysely<Database>({ dialect: new PostgresDialect({ pool: namingLosses(pool) }) })
}

/** The pool as Kysely wants it; a connection that is lost, or does not come about, is an error with a code. */
function namingLosses(pool: pg.Pool): PostgresPool {
  return {
    options: pool.options,
    end: () => pool.end(),
    async connect() {
      const client = await pool.connect().catch(throwLoss)
      const query = (text: string, parameters: readonly unknown[]) =>
        client.query(text, [...parameters]).catch(throwLoss)
      return {
        query: query as unknown as PostgresPoolClient['query'], // its other form, with a cursor, is not used
        release: (destroy) => client.release(destroy),
      }
    },
  }
}

/** What PostgreSQL says has a code, and what the socket says too; what pg itself says of a lost connection has none. */
function throwLoss(error: Error): never {
  if (Reflect.get(error, 'code') === undefined) Object.assign(error, { code: 'CONNECTION_LOST' })
  throw error
}
