import { type Kysely, sql } from 'kysely'
import { Migrator } from 'kysely/migration'
import { initial } from './migrations/0001-initial.ts'
import type { Database } from './schema.ts'
import { openSqlite, sqliteColumnTypes } from './sqlite.ts'

/** Reads: a Kysely over the tables. Inside `Store.write` it sees the caller's own writes. */
export type Reader = Kysely<Database>

/** One caller's part of a transaction. */
export interface Transaction {
  db: Reader
  /** Name a resource that this transaction changes; waiters and controllers hear of it after the commit. */
  changed(resourceId: string): void
}

export type ChangeListener = (resourceIds: ReadonlySet<string>) => void

interface WaitingWrite {
  work: (tx: Transaction) => Promise<unknown>
  resolve: (value: unknown) => void
  reject: (error: unknown) => void
}

/** Writes that share one commit at most; more wait for the next. */
const maxWritesPerCommit = 64

/**
 * The only way to the database. Writes are queued and those that arrive together share one commit: each caller has a
 * savepoint of its own, so one that fails takes nothing of the others with it, and each is answered after the commit
 * is on disk. Reads go past the queue and see the last commit.
 */
export class Store {
  readonly #writer: Kysely<Database>
  readonly #reader: Kysely<Database>
  readonly #listeners = new Set<ChangeListener>()
  #waiting: WaitingWrite[] = []
  #draining: Promise<void> | null = null

  private constructor(writer: Kysely<Database>, reader: Kysely<Database>) {
    this.#writer = writer
    this.#reader = reader
  }

  /** Open an SQLite file and bring its schema up to date. */
  static async openSqlite(file: string): Promise<Store> {
    const { writer, reader } = openSqlite(file)
    const migrator = new Migrator({
      db: writer,
      provider: { getMigrations: async () => ({ '0001-initial': initial(sqliteColumnTypes) }) },
    })
    const { error } = await migrator.migrateToLatest()
    if (error !== undefined) {
      await Promise.all([writer.destroy(), reader.destroy()])
      throw new Error(`the database ${file} cannot be brought to the current schema`, { cause: error })
    }
    return new Store(writer, reader)
  }

  /** The last committed state. */
  get read(): Reader {
    return this.#reader
  }

  /**
   * Run `work` in a transaction and give its result once that is durable. `work` touches nothing
   * but the database and waits for nothing else: everybody's commit waits for it.
   */
  write<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    this.#waiting.push({ work, resolve: (value) => resolve(value as T), reject })
    this.#draining ??= this.#drain()
    return promise
  }

  /** Hear of the ids changed by each commit, after it. Returns the function that ends it. */
  onChange(listener: ChangeListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Finish the queued writes and close the connections. */
  async close(): Promise<void> {
    await this.#draining
    await Promise.all([this.#writer.destroy(), this.#reader.destroy()])
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0) {
      await new Promise((resolve) => setImmediate(resolve)) // lets writes of this turn join
      await this.#commitTogether(this.#waiting.splice(0, maxWritesPerCommit))
    }
    this.#draining = null
  }

  async #commitTogether(batch: readonly WaitingWrite[]): Promise<void> {
    const changed = new Set<string>()
    const answers: (() => void)[] = []
    try {
      await sql`begin immediate`.execute(this.#writer)
      for (const write of batch) answers.push(await this.#runInSavepoint(write, changed))
      await sql`commit`.execute(this.#writer)
    } catch (error) {
      await sql`rollback`.execute(this.#writer).catch(() => undefined) // SQLITE_FULL has ended it already
      for (const write of batch) write.reject(error)
      return
    }
    if (changed.size > 0) this.#announce(changed)
    for (const answer of answers) answer()
  }

  /** What is committed is committed: a listener that fails harms neither the callers nor the other listeners. */
  #announce(changed: ReadonlySet<string>): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(changed)
      } catch (error) {
        process.emitWarning(error instanceof Error ? error : String(error))
      }
    }
  }

  /** Gives the function that answers the caller once the commit is done. Throws only when the transaction is lost. */
  async #runInSavepoint(write: WaitingWrite, changed: Set<string>): Promise<() => void> {
    const ownChanges = new Set<string>()
    await sql`savepoint caller`.execute(this.#writer)
    try {
      const value = await write.work({ db: this.#writer, changed: (id) => ownChanges.add(id) })
      await sql`release caller`.execute(this.#writer)
      for (const id of ownChanges) changed.add(id)
      return () => write.resolve(value)
    } catch (error) {
      try {
        await sql`rollback to caller`.execute(this.#writer)
        await sql`release caller`.execute(this.#writer)
      } catch {
        throw error // the database has ended the whole transaction; the first error says why
      }
      return () => write.reject(error)
    }
  }
}

/** Whether an error says that another process holds the database; it passes. */
export function isStorageBusy(error: unknown): boolean {
  const code = error instanceof Error ? Reflect.get(error, 'code') : undefined
  return code === 'SQLITE_BUSY' || code === 'SQLITE_LOCKED'
}

/** Whether an error is the database's word that the disk is full. */
export function isStorageFull(error: unknown): boolean {
  const code = error instanceof Error ? Reflect.get(error, 'code') : undefined
  return code === 'SQLITE_FULL' || code === 'SQLITE_IOERR_WRITE' || code === '53100'
}
