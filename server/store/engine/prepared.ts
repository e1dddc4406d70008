import type { CompiledQuery } from 'kysely'
import type { Database } from '../schema.ts'
import type { Reader } from '../transaction.ts'

/** Stands in a query for a value that comes with each run of it. */
class Place {
  readonly name: string

  constructor(name: string) {
    this.name = name
  }
}

/** Gives the place of a value in a query, to be used where the value itself would stand, of whatever type that is. */
export type Places = (name: string) => never

type Values = Readonly<Record<string, unknown>>

/** A query whose text was made once; see `prepare`. */
export interface PreparedQuery<Row> {
  /** Every row. */
  all(db: Reader, values: Values): Promise<Row[]>
  /** The first row, or undefined. */
  first(db: Reader, values: Values): Promise<Row | undefined>
  /** Run a statement that gives no rows; the number of rows it changed. */
  run(db: Reader, values: Values): Promise<number>
}

/**
 * Make a query that is built and turned into text at its first run on a database, and only filled with values after
 * that: building costs many times what SQLite needs to answer (docs/decisions/0021). `build` must not depend on
 * anything but its arguments; each place needs its value at every run.
 */
export function prepare<Row>(
  build: (db: Reader, place: Places) => { compile(): CompiledQuery<Row> },
): PreparedQuery<Row> {
  const texts = new WeakMap<object, CompiledQuery<Row>>()
  const filled = (db: Reader, values: Values): CompiledQuery<Row> => {
    const { adapter } = db.getExecutor() // one a database, also inside its transactions
    let compiled = texts.get(adapter)
    if (compiled === undefined) {
      compiled = build(db, (name) => new Place(name) as never).compile()
      texts.set(adapter, compiled)
    }
    const parameters = compiled.parameters.map((parameter) => {
      if (!(parameter instanceof Place)) return parameter
      const value = values[parameter.name]
      if (value === undefined) throw new TypeError(`a query has no value for ${parameter.name}`)
      return value
    })
    return { ...compiled, parameters }
  }
  return {
    async all(db, values) {
      return (await db.executeQuery(filled(db, values))).rows
    },
    async first(db, values) {
      return (await db.executeQuery(filled(db, values))).rows[0]
    },
    async run(db, values) {
      return Number((await db.executeQuery(filled(db, values))).numAffectedRows ?? 0n)
    },
  }
}

/** A row as it is inserted; the database numbers events and chunks. */
type NewRow<T extends keyof Database> = T extends 'events'
  ? Omit<Database[T], 'sequence'>
  : T extends 'console_chunks'
    ? Omit<Database[T], 'id'>
    : Database[T]

/** Rows that go in one statement; what is left over goes row by row, so that there are two texts a table. */
const rowsPerInsert = 16

interface Inserts {
  one: PreparedQuery<unknown>
  many: PreparedQuery<unknown>
  /** Names of the places of `many`: for each row, those of the columns. */
  places: readonly (readonly [column: string, place: string][])[]
}

const inserts = new Map<keyof Database, Inserts>()

/** Insert one row, with a query made once for its table. */
export async function insertRow<T extends keyof Database>(db: Reader, table: T, row: NewRow<T>): Promise<void> {
  await insertsOf(table, row).one.run(db, row as Values)
}

/** Insert rows in their order. */
export async function insertRows<T extends keyof Database>(
  db: Reader,
  table: T,
  rows: readonly NewRow<T>[],
): Promise<void> {
  let start = 0
  for (; start + rowsPerInsert <= rows.length; start += rowsPerInsert) {
    const together = rows.slice(start, start + rowsPerInsert) as Values[]
    const { many, places } = insertsOf(table, together[0] ?? {})
    const values: Record<string, unknown> = {}
    together.forEach((row, i) => {
      for (const [column, place] of places[i] ?? []) values[place] = row[column]
    })
    await many.run(db, values)
  }
  for (const row of rows.slice(start)) await insertRow(db, table, row)
}

/** The queries of a table. Its rows are always given whole, so every one has the columns of the first. */
function insertsOf(table: keyof Database, row: object): Inserts {
  const known = inserts.get(table)
  if (known !== undefined) return known
  const columns = Object.keys(row)
  const places = Array.from({ length: rowsPerInsert }, (_, i) =>
    columns.map((column) => [column, `${column} ${i}`] as [string, string]),
  )
  const made: Inserts = {
    one: prepare((db, place) =>
      db.insertInto(table).values(Object.fromEntries(columns.map((column) => [column, place(column)])) as never),
    ),
    many: prepare((db, place) =>
      db
        .insertInto(table)
        .values(places.map((names) => Object.fromEntries(names.map(([c, name]) => [c, place(name)]))) as never),
    ),
    places,
  }
  inserts.set(table, made)
  return made
}
