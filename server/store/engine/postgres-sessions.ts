import { Kysely, PostgresDialect, type PostgresPool, type PostgresPoolClient } from 'kysely'
import pg from 'pg'
import type { Database } from '../schema.ts'
import { connectionLost, isStorageUnavailable } from './engine.ts'

/** Bounds of one connection, milliseconds; 0 is none. */
export interface SessionTimes {
  /** For a connection to come about, and for one of the pool to become free. */
  connectMs: number
  /** For a lock that another session holds. */
  lockMs: number
  /** For a statement, by PostgreSQL's clock. */
  statementMs: number
  /** For the answer to a statement, by ours: PostgreSQL or the way to it is silent, and the connection is given up. */
  answerMs: number
  /** Between two statements of a transaction: we are silent, and PostgreSQL gives the transaction up with its locks. */
  idleInTransactionMs: number
}

/** An idle connection is closed after 10 s (pg-pool); one that PostgreSQL sees idle for longer belongs to nobody. */
const idleSessionMs = 60_000

/** A whole transaction; its statements have bounds of their own. */
const transactionMs = 60_000

/** The kernel looks for a peer that is gone after a silence of so long. */
const keepAliveMs = 10_000

const int8Oid = pg.types.builtins.INT8

/** Connections of one server to one database, all with what Berth needs set in them. */
export class PostgresSessions {
  readonly #url: string
  #schema: string | null = null

  constructor(url: string) {
    this.#url = url
  }

  /** The schema of the tables; null until there was a connection. */
  get schema(): string | null {
    return this.#schema
  }

  /** A pool of at most so many connections. */
  pool(connections: number, times: SessionTimes, access: 'read only' | 'read write' = 'read write'): Kysely<Database> {
    const pool = new pg.Pool({
      connectionString: this.#url,
      max: connections,
      connectionTimeoutMillis: times.connectMs,
      keepAlive: true,
      keepAliveInitialDelayMillis: keepAliveMs,
      allowExitOnIdle: true, // an idle connection whose peer does not even answer a goodbye holds no process up
      application_name: 'berth',
      types: {
        // every integer here is below 2^53: milliseconds, sizes, counts
        getTypeParser: (oid: number, format?: 'text' | 'binary') =>
          oid === int8Oid ? Number : pg.types.getTypeParser(oid, format as 'text'),
      },
    })
    pool.on('error', () => undefined) // an idle connection was lost; the next query opens another
    // the pool does not listen while a connection is in use; a loss then fails its query, and must not end the process
    pool.on('connect', (client) => client.on('error', () => undefined))
    const greet = (query: Query) => this.#greet(query, settingsOf(times, access), times.connectMs)
    return new Kysely<Database>({ dialect: new PostgresDialect({ pool: lending(pool, times, greet) }) })
  }

  /**
   * Make a new connection one of ours. What is set here may have been set otherwise for the database or the role (ALTER
   * DATABASE … SET, ALTER ROLE … SET), and is set by a statement because connection poolers refuse most of it at the start.
   */
  async #greet(query: Query, settings: Record<string, string>, withinMs: number): Promise<void> {
    this.#schema ??= await findSchema(query, withinMs)
    const wanted = { ...settings, search_path: pg.escapeIdentifier(this.#schema) }
    const { rows } = await query(greeting, [JSON.stringify(wanted)], withinMs)
    if (rows[0]?.standby !== false)
      throw new Error('PostgreSQL is a standby here, which lags behind and takes no writes')
    if (rows[0]?.encoding !== 'UTF8')
      throw new Error(`the encoding of the database is ${rows[0]?.encoding}; it must be UTF8`)
  }
}

/** What the statements of the store rely on, and the bounds that PostgreSQL keeps. */
function settingsOf(times: SessionTimes, access: 'read only' | 'read write'): Record<string, string> {
  const unlimited = times.statementMs === 0
  return {
    lock_timeout: `${times.lockMs}ms`,
    statement_timeout: `${times.statementMs}ms`,
    transaction_timeout: unlimited ? '0' : `${transactionMs}ms`,
    idle_in_transaction_session_timeout: `${times.idleInTransactionMs}ms`,
    idle_session_timeout: `${idleSessionMs}ms`,
    // a client that is gone without a word; of no effect on a unix socket
    tcp_keepalives_idle: `${keepAliveMs / 1000}s`,
    tcp_keepalives_interval: '5s',
    tcp_keepalives_count: '3',
    tcp_user_timeout: '15s',
    default_transaction_isolation: 'read committed', // see `begin` in postgres.ts
    default_transaction_read_only: access === 'read only' ? 'on' : 'off',
    default_transaction_deferrable: 'off',
    session_replication_role: 'origin', // else foreign keys are not enforced
    synchronous_commit: 'on', // else what was answered may be lost; see `greeting`
    standard_conforming_strings: 'on',
    bytea_output: 'hex',
    TimeZone: 'UTC',
  }
}

/**
 * Sets what differs, and only what this version of PostgreSQL knows. Of `synchronous_commit` only `off` is replaced: the other
 * values all have a commit on disk before it is answered, and say how many standbys have it too.
 */
const greeting = `
  select pg_is_in_recovery() as standby, current_setting('server_encoding') as encoding,
    count(set_config(name, value, false))
  from json_each_text($1) as wanted(name, value) join pg_settings using (name)
  where setting <> value and (name <> 'synchronous_commit' or setting = 'off')`

const schemas = `
  select current_schema()::text as current, array(
    select n.nspname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relname = 'idempotency_keys' and c.relkind in ('r', 'p')
      and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')
      and exists (select from pg_class m where m.relnamespace = n.oid and m.relname = 'kysely_migration')
  ) as found`

/**
 * The schema of the tables, or the one for them in a database that has none. Not simply where the search path leads:
 * were that changed, a server would make its tables anew, and tell its hosts that nothing is wanted of them.
 */
async function findSchema(query: Query, withinMs: number): Promise<string> {
  const { rows } = await query(schemas, [], withinMs)
  const { current, found } = rows[0] as { current: string | null; found: string[] }
  if (current !== null && (found.length === 0 || found.includes(current))) return current
  const [only, ...others] = found
  if (only === undefined) throw new Error('the search_path of the database leads to no schema in which to make tables')
  if (others.length > 0) {
    throw new Error(`tables are in the schemas ${found.join(', ')}, and search_path leads to none of them`)
  }
  return only
}

/** Asks one statement; `withinMs`: instead of the usual bound for the answer. */
type Query = (text: string, parameters: readonly unknown[], withinMs?: number) => Promise<pg.QueryResult>

/**
 * The pool as Kysely wants it. A connection that is lost, silent or does not come about is an error with the code
 * `connectionLost`; it is then not used any more, neither for the rest of a transaction nor by others.
 */
function lending(pool: pg.Pool, times: SessionTimes, greet: (query: Query) => Promise<void>): PostgresPool {
  const greeted = new WeakSet<pg.PoolClient>()
  return {
    options: pool.options,
    end: () => pool.end(),
    async connect() {
      const client = await pool.connect().catch(throwNoConnection)
      let lost: Error | null = null
      let spoiled = false
      const query: Query = async (text, parameters, withinMs = times.answerMs) => {
        if (lost !== null) throw lost
        // `query_timeout` is pg's own bound: it gives the query up, which goes on to occupy the connection
        const asked = { text, values: [...parameters], query_timeout: withinMs }
        return client.query(asked).catch((error: Error) => {
          if (!isLoss(error)) {
            spoiled ||= isStorageUnavailable(error) // by a standby, say: the next one may be of another server
            throw error
          }
          lost = error instanceof pg.DatabaseError ? error : noAnswer(error)
          throw lost
        })
      }
      if (!greeted.has(client)) {
        await greet(query).catch((error) => {
          client.release(true)
          throwNoConnection(error)
        })
        greeted.add(client)
      }
      return {
        query: query as unknown as PostgresPoolClient['query'], // its other form, with a cursor, is not used
        // with a query still on its way this ends the socket at once, without a goodbye that nobody answers
        release: (destroy) => client.release(destroy === true || lost !== null || spoiled),
      }
    },
  }
}

/** Whatever the cause, a wrong password or a database that is being restored included: nobody who asked is to blame. */
function throwNoConnection(cause: unknown): never {
  throw Object.assign(new Error('no connection to PostgreSQL comes about', { cause }), { code: connectionLost })
}

function noAnswer(cause: unknown): Error {
  return Object.assign(new Error('the connection to PostgreSQL was lost or is silent', { cause }), {
    code: connectionLost,
  })
}

/** What is not PostgreSQL's own word is the socket's or pg's about it, but for a value that cannot be sent at all. */
function isLoss(error: Error): boolean {
  if (error instanceof pg.DatabaseError) return error.severity === 'FATAL' || error.severity === 'PANIC'
  return !(error instanceof TypeError || error instanceof RangeError)
}
