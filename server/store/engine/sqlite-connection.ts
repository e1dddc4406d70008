import type SqliteDatabase from 'better-sqlite3'
import {
  type CompiledQuery,
  type DatabaseConnection,
  DefaultQueryExecutor,
  Kysely,
  type QueryResult,
  SqliteDialect,
  SqliteQueryCompiler,
} from 'kysely'
import type { Database } from '../schema.ts'

/** Statements kept compiled per connection; texts differ by the number of values in `in (…)`. */
const cachedStatements = 500

/**
 * Kysely on one SQLite connection, which answers each query at once: Kysely's own way to a connection (a pool, a lock,
 * hooks) costs more than the query. Statements are compiled once. Closing the database is the caller's.
 */
export function kyselyOn(database: SqliteDatabase.Database): Kysely<Database> {
  const dialect = new SqliteDialect({ database })
  const executor = new DirectExecutor(dialect, new DirectConnection(database))
  return new Kysely<Database>({ config: { dialect }, dialect, driver: dialect.createDriver(), executor })
}

/**
 * Writes places as `+?`, which means the same. Where SQLite's planner has looked at a plain `?` (for ORDER BY, LIMIT, LIKE
 * and partial indexes), it takes the plan for one of that value and compiles the statement anew at each run, which costs
 * several times what the statement does (https://sqlite.org/c3ref/prepare.html, on parameters that influence the plan).
 */
class StablePlanCompiler extends SqliteQueryCompiler {
  protected override getCurrentParameterPlaceholder(): string {
    return '+?'
  }
}

class DirectExecutor extends DefaultQueryExecutor {
  readonly #connection: DirectConnection

  constructor(dialect: SqliteDialect, connection: DirectConnection) {
    super(new StablePlanCompiler(), dialect.createAdapter(), {
      provideConnection: (consumer) => consumer(connection),
    })
    this.#connection = connection
  }

  override executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    return this.#connection.executeQuery(query)
  }
}

class DirectConnection implements DatabaseConnection {
  readonly #database: SqliteDatabase.Database
  readonly #statements = new Map<string, SqliteDatabase.Statement<unknown[]>>()

  constructor(database: SqliteDatabase.Database) {
    this.#database = database
  }

  async executeQuery<R>({ sql, parameters }: CompiledQuery): Promise<QueryResult<R>> {
    const statement = this.#prepare(sql)
    if (statement.reader) return { rows: statement.all(parameters) as R[] } // what the query says of its rows
    const { changes, lastInsertRowid } = statement.run(parameters)
    return { insertId: BigInt(lastInsertRowid), numAffectedRows: BigInt(changes), rows: [] }
  }

  // biome-ignore lint/correctness/useYield: there is nothing to give
  async *streamQuery(): AsyncIterableIterator<never> {
    throw new Error('nothing here reads a query as a stream')
  }

  /** Compiling a statement costs more than running it. */
  #prepare(text: string): SqliteDatabase.Statement<unknown[]> {
    const known = this.#statements.get(text)
    if (known !== undefined) return known
    if (this.#statements.size >= cachedStatements) this.#statements.clear()
    const statement = this.#database.prepare<unknown[]>(text)
    this.#statements.set(text, statement)
    return statement
  }
}
