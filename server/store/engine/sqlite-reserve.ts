import { closeSync, fstatSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import type SqliteDatabase from 'better-sqlite3'
import type { StorageReserve } from './engine.ts'

/** Bytes of the reserve's file. Half of it becomes room in the WAL, the rest is for what a checkpoint adds to the database. */
export const reserveBytes = 8 * 1024 * 1024
const walBytes = reserveBytes / 2

const zeros = Buffer.alloc(256 * 1024)

/**
 * A file beside the database, removed when a write that makes room finds the disk full. What becomes free is taken in the
 * same moment, before guests write it full: the WAL is made longer, and a checkpoint adds to the database what the WAL
 * holds. SQLite overwrites a WAL from its start after a checkpoint, so that room serves many commits
 * (https://sqlite.org/wal.html). It makes the file anew when twice its size is free.
 */
export class SqliteReserve implements StorageReserve {
  readonly #database: SqliteDatabase.Database
  readonly #file: string
  #there: boolean | null = null

  /** `file` is the database's. */
  constructor(database: SqliteDatabase.Database, file: string) {
    this.#database = database
    this.#file = file
  }

  keep(): boolean {
    if (this.#there === true) return true
    // one of an earlier run may be there, or a part of one
    const free = this.freeBytes()
    const path = this.#path
    this.#there = extend(path, reserveBytes, 'a', () => free !== null && free >= 2 * reserveBytes)
    return this.#there
  }

  giveUp(): boolean {
    if (this.#there === null) this.keep()
    if (this.#there !== true) return false
    this.#there = false
    rmSync(this.#path, { force: true })
    const wal = `${this.#file}-wal`
    // no lock is lost by this: SQLite's are on the database and on its -shm file
    extend(wal, sizeOf(wal) + walBytes, 'r+', () => true)
    try {
      this.#database.pragma('wal_checkpoint(PASSIVE)')
    } catch {
      // what it could not copy stays in the WAL
    }
    return true
  }

  freeBytes(): number | null {
    try {
      const { bavail, bsize } = statfsSync(dirname(this.#file))
      return bavail * bsize
    } catch {
      return null
    }
  }

  get #path(): string {
    return `${this.#file}.reserve`
  }
}

function sizeOf(path: string): number {
  try {
    const file = openSync(path, 'r')
    try {
      return fstatSync(file).size
    } finally {
      closeSync(file)
    }
  } catch {
    return 0
  }
}

/** Write zeros at the end of a file until it is so long, if it is not and `mayGrow` says so. Gives whether it is. */
function extend(path: string, bytes: number, flags: 'a' | 'r+', mayGrow: () => boolean): boolean {
  let size = sizeOf(path)
  if (size >= bytes) return true
  if (!mayGrow()) return false
  try {
    const file = openSync(path, flags, 0o600)
    try {
      while (size < bytes) size += writeSync(file, zeros, 0, Math.min(zeros.length, bytes - size), size)
    } finally {
      closeSync(file)
    }
    return true
  } catch {
    return false
  }
}
