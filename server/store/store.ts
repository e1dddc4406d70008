import { CompiledQuery, sql } from 'kysely'
import { type Migration, Migrator } from 'kysely/migration'
import { ApiError } from '../api-error.ts'
import { type Change, eventType, mergeChange } from './change.ts'
import { type ColumnTypes, isStorageFull, isStorageUnavailable, type StoreEngine } from './engine/engine.ts'
import { openPostgres, type PostgresTimes, postgresColumnTypes } from './engine/postgres.ts'
import { openSqlite, sqliteColumnTypes } from './engine/sqlite.ts'
import { insertEvents } from './events.ts'
import { raiseDesiredRevision } from './hosts/hosts.ts'
import { initial } from './migrations/0001-initial.ts'
import { eventsAndKeys } from './migrations/0002-events-and-keys.ts'
import { images } from './migrations/0003-images.ts'
import { hostUsage } from './migrations/0004-host-usage.ts'
import { publicAddresses } from './migrations/0005-public-addresses.ts'
import { repairsAndAudits } from './migrations/0006-repairs-and-audits.ts'
import { hostOrphans } from './migrations/0007-host-orphans.ts'
import { resourceUids } from './migrations/0008-resource-uids.ts'
import { imageChecksums } from './migrations/0009-image-checksums.ts'
import { onPanic } from './migrations/0010-on-panic.ts'
import { names } from './migrations/0011-names.ts'
import { readyTimeouts } from './migrations/0012-ready-timeouts.ts'
import { type MigrationObserver, type StoreObserver, unobserved } from './observer.ts'
import type { Reader, Transaction } from './transaction.ts'

export type ChangeListener = (resourceIds: ReadonlySet<string>) => void

export interface StoreOptions {
  /** Milliseconds UTC, for the times of events. */
  now?: () => number
  observer?: StoreObserver
  /** Set disk space aside for the writes that make room, where the engine can; for servers. */
  keepsReserve?: boolean
  migrations?: MigrationObserver
  /** How long to wait for PostgreSQL, where not as usual. */
  postgres?: Partial<PostgresTimes>
}

export interface WriteOptions {
  /** Whether it may use what is set aside for a full disk. All else is refused there, and while nothing is set aside. */
  makesRoom?: boolean
}

/** What one commit comes to, collected from the writes in it. */
interface Commit {
  changed: Set<string>
  /** Hosts of which something else is desired now. */
  hosts: Set<string>
  kept: number
  events: Change[]
  afterwards: ((observer: StoreObserver) => void)[]
}

interface WaitingWrite {
  work: (tx: Transaction) => Promise<unknown>
  makesRoom: boolean
  resolve: (value: unknown) => void
  reject: (error: unknown) => void
  /** Commits that the database could not take while this one waited for its own. */
  failuresSeen: number
}

const savepoint = CompiledQuery.raw('savepoint caller')
const releaseSavepoint = CompiledQuery.raw('release savepoint caller')
const rollbackToSavepoint = CompiledQuery.raw('rollback to savepoint caller')

/** When migrations take long, milliseconds. */
const longMigrationMs = 10_000

/** Writes that share one commit at most; more wait for the next. */
const maxWritesPerCommit = 64

/** A write that waited while so many commits failed is refused without being tried. */
const maxFailuresSeen = 2

/**
 * The only way to the database. Writes are queued and those that arrive together share one commit: each caller has a
 * savepoint of its own, so one that fails takes nothing of the others with it, and each is answered after the commit
 * is on disk. Reads go past the queue and see the last commit.
 */
export class Store {
  readonly #engine: StoreEngine
  readonly #now: () => number
  readonly #observer: StoreObserver
  readonly #listeners = new Set<ChangeListener>()
  #waiting: WaitingWrite[] = []
  #draining: Promise<void> | null = null

  private constructor(engine: StoreEngine, options: StoreOptions) {
    this.#engine = engine
    this.#now = options.now ?? Date.now
    this.#observer = options.observer ?? unobserved
  }

  /**
   * Open a database and bring its schema up to date: an SQLite file, made when absent, or a PostgreSQL database by its
   * `postgres://` URL.
   */
  static async open(database: string, options: StoreOptions = {}): Promise<Store> {
    const engine = isPostgresUrl(database) ? openPostgres(database, options.postgres) : openSqlite(database, options)
    try {
      await migrate(engine, options.migrations)
      return new Store(engine, options)
    } catch (error) {
      await engine.close()
      throw new Error(`the database ${withoutPassword(database)} cannot be opened or brought to the current schema`, {
        cause: error,
      })
    }
  }

  /** Which database it is. */
  get engine(): StoreEngine['name'] {
    return this.#engine.name
  }

  /** Writes that wait for a commit to take them. */
  get queueLength(): number {
    return this.#waiting.length
  }

  /** The last committed state. */
  get read(): Reader {
    return this.#engine.reader
  }

  /**
   * Run `work` in a transaction and give its result once that is durable. `work` touches nothing
   * but the database and waits for nothing else: everybody's commit waits for it. Throws storage_full.
   */
  write<T>(work: (tx: Transaction) => Promise<T>, options: WriteOptions = {}): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    const makesRoom = options.makesRoom === true
    this.#waiting.push({ work, makesRoom, resolve: (value) => resolve(value as T), reject, failuresSeen: 0 })
    this.#draining ??= this.#drain()
    return promise
  }

  /** `write` with what is set aside for a full disk: of what deletes or stops something, and what the end of that needs. */
  writeMakingRoom<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return this.write(work, { makesRoom: true })
  }

  /** Resolves when the database answers a read; rejects with its error. */
  async canRead(): Promise<void> {
    await sql`select is_locked from kysely_migration_lock`.execute(this.read)
  }

  /**
   * Resolves when a commit is durable that writes something: an empty one would also succeed on a full disk. The row of
   * the migrations' lock is there always, and is given the value it has.
   */
  canWrite(): Promise<void> {
    return this.write(async ({ db }) => {
      await sql`update kysely_migration_lock set is_locked = is_locked`.execute(db)
    })
  }

  /** Hear of the ids changed by each commit, after it, and of a commit that may have failed. Returns the function that ends it. */
  onChange(listener: ChangeListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Finish the queued writes and close the connections. */
  async close(): Promise<void> {
    await this.#draining
    await this.#engine.close()
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0) {
      await new Promise((resolve) => setImmediate(resolve)) // lets writes of this turn join
      await this.#commitTogether(this.#admitted(this.#waiting.splice(0, maxWritesPerCommit)))
    }
    this.#draining = null
  }

  /** Those of some writes that may use what room there is; the others are refused. */
  #admitted(batch: readonly WaitingWrite[]): readonly WaitingWrite[] {
    const { reserve } = this.#engine
    if (reserve === null || batch.every(({ makesRoom }) => makesRoom) || reserve.keep()) return batch
    return this.#thoseThatMakeRoom(batch, undefined)
  }

  #thoseThatMakeRoom(batch: readonly WaitingWrite[], cause: unknown): readonly WaitingWrite[] {
    const refusal = this.#storageFull(cause)
    for (const { makesRoom, reject } of batch) if (!makesRoom) reject(refusal)
    return batch.filter(({ makesRoom }) => makesRoom)
  }

  #storageFull(cause: unknown): ApiError {
    const { reserve } = this.#engine
    const bytes = reserve?.freeBytes() ?? null
    const free = bytes === null ? '' : ` (${Math.floor(bytes / 2 ** 20)} MiB are free)`
    const help =
      reserve === null
        ? 'Make room there, then try again.'
        : 'Instances can still be stopped and everything can be deleted: make room so, or on the disk itself, then try again.'
    const message = `The disk that holds the state is full${free}; nothing was changed. ${help}`
    return new ApiError('storage_full', message, { cause })
  }

  async #commitTogether(batch: readonly WaitingWrite[]): Promise<void> {
    if (batch.length === 0) return
    const commit: Commit = { changed: new Set(), hosts: new Set(), kept: 0, events: [], afterwards: [] }
    const answers: (() => void)[] = []
    const begunAt = performance.now()
    let writtenAt = begunAt
    try {
      await this.#engine.transaction(async (db) => {
        for (const write of batch) answers.push(await this.#runInSavepoint(db, write, commit))
        for (const id of commit.hosts) await raiseDesiredRevision(db, id)
        await insertEvents(db, commit.events, this.#now())
        writtenAt = performance.now()
      })
    } catch (error) {
      const isFull = isStorageFull(error)
      if (isFull && batch.some(({ makesRoom }) => makesRoom) && this.#engine.reserve?.giveUp() === true) {
        return this.#commitTogether(this.#thoseThatMakeRoom(batch, error))
      }
      this.#tell((observer) => observer.commitFailed(batch.length))
      // a lost connection may have lost the answer to a commit that is done: who waits for these changes looks for
      // himself. Not when the database has said no: controllers would be woken by their own failures, for ever.
      if (commit.changed.size > 0 && isStorageUnavailable(error)) this.#announce(commit.changed)
      for (const write of batch) write.reject(isFull ? this.#storageFull(error) : error)
      if (isStorageUnavailable(error)) this.#refuseLongWaiting(error)
      return
    }
    const endedAt = performance.now()
    if (commit.changed.size > 0) this.#announce(commit.changed)
    for (const answer of answers) answer()
    this.#tell((observer) =>
      observer.committed({
        kept: commit.kept,
        rolledBack: batch.length - commit.kept,
        transactionMs: endedAt - begunAt,
        commitMs: endedAt - writtenAt,
        events: commit.events.map(eventType),
      }),
    )
    for (const tell of commit.afterwards) this.#tell(tell)
  }

  /**
   * A database that is away costs each commit a time-out, and who is far back in the queue would wait for many of them.
   * One failure may be a single lost connection; after the second nobody who waited through both is kept waiting.
   */
  #refuseLongWaiting(error: unknown): void {
    for (const write of this.#waiting) write.failuresSeen++
    const refused = this.#waiting.filter(({ failuresSeen }) => failuresSeen >= maxFailuresSeen)
    this.#waiting = this.#waiting.filter(({ failuresSeen }) => failuresSeen < maxFailuresSeen)
    for (const write of refused) write.reject(error)
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

  #tell(tell: (observer: StoreObserver) => void): void {
    try {
      tell(this.#observer)
    } catch (error) {
      process.emitWarning(error instanceof Error ? error : String(error))
    }
  }

  /** Gives the function that answers the caller once the commit is done. Throws only when the transaction is lost. */
  async #runInSavepoint(db: Reader, write: WaitingWrite, commit: Commit): Promise<() => void> {
    const changes = new Map<string, Change>()
    const woken = new Set<string>()
    const hosts: string[] = []
    const afterwards: Commit['afterwards'] = []
    await db.executeQuery(savepoint)
    try {
      const value = await write.work({
        db,
        changed: (change) => mergeChange(changes, change),
        tellHosts: (ids) => hosts.push(...ids),
        wake: (id) => woken.add(id),
        afterCommit: (tell) => afterwards.push(tell),
      })
      await db.executeQuery(releaseSavepoint)
      commit.kept++
      for (const change of changes.values()) commit.changed.add(change.id)
      for (const id of [...woken, ...hosts]) commit.changed.add(id)
      for (const id of hosts) commit.hosts.add(id)
      commit.events.push(...changes.values())
      commit.afterwards.push(...afterwards)
      return () => write.resolve(value)
    } catch (error) {
      if (isStorageFull(error)) throw error // of all of them, whether or not the database has ended the transaction
      try {
        await db.executeQuery(rollbackToSavepoint)
        await db.executeQuery(releaseSavepoint)
        if (isStorageUnavailable(error)) await this.#engine.waitLess(db)
      } catch (lost) {
        // the database has ended the whole transaction: everybody in it is told why, not what this caller was refused
        throw error instanceof ApiError ? lost : error
      }
      return () => write.reject(error)
    }
  }
}

/** Whether a text names a PostgreSQL database, and not a file. */
export function isPostgresUrl(database: string): boolean {
  return /^postgres(ql)?:\/\//.test(database)
}

/** Every migration by name, in the words of a dialect. One that was ever released is not changed any more. */
export function migrations(types: ColumnTypes): Record<string, Migration> {
  return {
    '0001-initial': initial(types),
    '0002-events-and-keys': eventsAndKeys(types),
    '0003-images': images(types),
    '0004-host-usage': hostUsage(types),
    '0005-public-addresses': publicAddresses(types),
    '0006-repairs-and-audits': repairsAndAudits(types),
    '0007-host-orphans': hostOrphans(),
    '0008-resource-uids': resourceUids(),
    '0009-image-checksums': imageChecksums(),
    '0010-on-panic': onPanic(),
    '0011-names': names(),
    '0012-ready-timeouts': readyTimeouts(),
  }
}

async function migrate(engine: StoreEngine, observer: MigrationObserver | undefined): Promise<void> {
  const types = engine.name === 'sqlite' ? sqliteColumnTypes : postgresColumnTypes
  const begunAt = performance.now()
  let waiting = true
  const timer = setInterval(
    () => observer?.migrating(performance.now() - begunAt, waiting),
    observer?.longMs ?? longMigrationMs,
  )
  timer.unref()
  try {
    await engine.migrate(async (db, within) => {
      waiting = false
      const migrator = new Migrator({
        db,
        provider: { getMigrations: async () => migrations(types) },
        // else it takes a table of this name in any schema for its own
        ...(within === null ? {} : { migrationTableSchema: within }),
      })
      const { error, results = [] } = await migrator.migrateToLatest()
      if (error !== undefined) throw error
      const ran = results.map(({ migrationName }) => migrationName)
      if (ran.length > 0) observer?.migrated(ran, performance.now() - begunAt)
    })
  } finally {
    clearInterval(timer)
  }
}

/** A database's name for messages. */
function withoutPassword(database: string): string {
  if (!isPostgresUrl(database)) return database
  if (!URL.canParse(database)) return 'postgres://…'
  const { host, pathname } = new URL(database)
  return `postgres://${host}${pathname}`
}
