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
  /** Where migrations run; everything else writes through `transaction`. */
  writer: Kysely<Database>
  /**
   * Run `work` on one connection inside one transaction and commit it durably. No other transaction of any server
   * writes meanwhile, so what `work` reads stays true until the commit. Rolls back and throws what `work` throws.
   */
  transaction<T>(work: (db: Kysely<Database>) => Promise<T>): Promise<T>
  /** Disk space that only writes which make room may use; null where the engine has none. */
  reserve: StorageReserve | null
  /** The schema is up to date: from now on every rule of it is enforced. */
  migrated(): void
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

/** Whether an error says that the database cannot be used at the moment: busy, restarting, out of reach. It passes. */
export function isStorageUnavailable(error: unknown): boolean {
  const code = codeOf(error)
  return unavailableCodes.has(code) || code.startsWith('08') || code.startsWith('57P')
}

/** Whether an error is the database's word that the disk is full. */
export function isStorageFull(error: unknown): boolean {
  return fullCodes.has(codeOf(error))
}

/** https://sqlite.org/rescode.html; Node's socket errors; PostgreSQL's classes 08 and 57P are tested above. */
const unavailableCodes = new Set([
  'SQLITE_BUSY',
  'SQLITE_LOCKED',
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ENOENT',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'CONNECTION_LOST',
  '53300', // too many connections
  '55P03', // lock not available
])

/** 53100 is PostgreSQL's disk_full; SQLite says IOERR when it cannot grow its WAL or shared memory. */
const fullCodes = new Set(['SQLITE_FULL', 'SQLITE_IOERR_WRITE', 'SQLITE_IOERR_SHMSIZE', '53100'])

function codeOf(error: unknown): string {
  const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined
  return typeof code === 'string' ? code : ''
}
