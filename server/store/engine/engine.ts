import type { Kysely } from 'kysely'
import type { Database } from '../schema.ts'

/**
 * What the store needs of a database. There are two: an SQLite file (sqlite.ts) and PostgreSQL (postgres.ts). Queries
 * are the same on both; everything in which they differ is behind this interface and `ColumnTypes` of the migrations.
 */
export interface StoreEngine {
  name: 'sqlite' | 'postgres'
  /** The last committed state; does not wait for writers. */
  reader: Kysely<Database>
  /**
   * Bring the schema up to date with `work`, as long as it takes, while no other server writes or does the same; from
   * then on every rule of the schema is enforced. Called once, before anything else. `within` names what holds the tables
   * (PostgreSQL calls that a schema, too); null where there is but one place for them.
   */
  migrate<T>(work: (db: Kysely<Database>, within: string | null) => Promise<T>): Promise<T>
  /**
   * Run `work` on one connection inside one transaction and commit it durably. No other transaction of any server
   * writes meanwhile, so what `work` reads stays true until the commit. Rolls back and throws what `work` throws.
   */
  transaction<T>(work: (db: Kysely<Database>) => Promise<T>): Promise<T>
  /** Inside a transaction in which a lock was waited for in vain: the rest of it hardly waits for any. */
  waitLess(db: Kysely<Database>): Promise<void>
  /** Disk space that only writes which make room may use; null where the engine has none. */
  reserve: StorageReserve | null
  close(): Promise<void>
}

/** Disk space set aside beside a database, for the time when its disk is full. */
export interface StorageReserve {
  /** Have it there. False when it was given up and there is no room for it yet. */
  keep(): boolean
  /** Have the database use it, at once. False when it has been given up already. */
  giveUp(): boolean
  /** Bytes that are free on the disk, null when that is not known. */
  freeBytes(): number | null
}

/** The words in which the dialects of SQL differ; everything else of a migration is the same for all. */
export interface ColumnTypes {
  dialect: StoreEngine['name']
  integer: 'integer' | 'bigint'
  bytes: 'blob' | 'bytea'
  /** A number that the database gives each new row, always greater than all before it. */
  serial: 'integer' | 'bigserial'
  /** Ending of CREATE TABLE: SQLite's STRICT makes it check types as others do. */
  tableOptions: string
}

/**
 * Whether an error says that the database cannot be used at the moment: busy, restarting, out of reach. It passes; what
 * was asked for may be asked for again.
 */
export function isStorageUnavailable(error: unknown): boolean {
  const code = codeOf(error)
  if (fullCodes.has(code)) return false
  return passingCodes.has(code) || (sqlState.test(code) && passingClasses.has(code.slice(0, 2)))
}

/** Whether an error is the database's word that the disk is full. */
export function isStorageFull(error: unknown): boolean {
  return fullCodes.has(codeOf(error))
}

/** Code of an error that says that a connection was lost, or that none comes about, whatever the cause. */
export const connectionLost = 'CONNECTION_LOST'

const sqlState = /^[0-9A-Z]{5}$/

/**
 * Classes of PostgreSQL's errors that pass: connection exceptions, insufficient resources, operator intervention (a
 * cancelled statement, a shutdown, a start) and errors of its system (https://www.postgresql.org/docs/current/errcodes-appendix.html).
 */
const passingClasses = new Set(['08', '53', '57', '58'])

/** Single codes that pass: https://sqlite.org/rescode.html and those of PostgreSQL whose classes hold others too. */
const passingCodes = new Set([
  connectionLost,
  'SQLITE_BUSY',
  'SQLITE_BUSY_RECOVERY',
  'SQLITE_BUSY_SNAPSHOT',
  'SQLITE_BUSY_TIMEOUT',
  'SQLITE_LOCKED',
  'SQLITE_LOCKED_SHAREDCACHE',
  'SQLITE_PROTOCOL',
  '25006', // read-only transaction: a standby, or a database that was closed to writes
  '25P03', // idle in transaction for too long
  '25P04', // transaction timeout
  '40001', // serialization failure; also a standby's conflict with recovery
  '40003', // statement completion unknown
  '40P01', // deadlock detected
  '55000', // object not in prerequisite state: the database accepts no connections, recovery is in progress
  '55006', // object in use
  '55P03', // lock not available
])

/** 53100 is PostgreSQL's disk_full; SQLite says IOERR when it cannot grow its WAL or shared memory. */
const fullCodes = new Set(['SQLITE_FULL', 'SQLITE_IOERR_WRITE', 'SQLITE_IOERR_SHMSIZE', '53100'])

/** The code of a database's error, an empty text for every other. */
export function codeOf(error: unknown): string {
  const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined
  return typeof code === 'string' ? code : ''
}
