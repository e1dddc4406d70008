import { closeSync, fsyncSync, openSync } from 'node:fs'
import { rename, rm, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { migrations } from '../store.ts'
import { sqliteColumnTypes } from './sqlite.ts'

/** What is in a database file that was looked at. */
export interface DatabaseContents {
  /** Name of the last migration it went through. */
  schema: string
  instances: number
  operations: number
  /** Sequence number of its newest event; 0 when it has none. */
  lastEvent: number
}

/** A database file that cannot be used; the message says why. */
export class DatabaseFileError extends Error {
  override readonly name = 'DatabaseFileError'
}

/**
 * Write a copy of a database, also of one that a server works with at this moment: the copy is one commit, whole, and
 * holds every write that was acknowledged before it began. `to` appears by rename, on disk, checked, and readable by its
 * owner alone, since user data is in it. Writers wait for nothing (https://sqlite.org/lang_vacuum.html#vacuuminto, which
 * also takes an empty file; a read transaction of WAL). Throws DatabaseFileError.
 */
export async function backupSqlite(from: string, to: string): Promise<DatabaseContents> {
  const partial = `${to}.partial`
  await rm(partial, { force: true })
  try {
    const source = new SqliteDatabase(from, { readonly: true, fileMustExist: true, timeout: 5000 })
    try {
      await writeFile(partial, '', { flag: 'wx', mode: 0o600 })
      source.prepare('vacuum into ?').run(partial)
    } finally {
      source.close()
    }
    const contents = checkSqlite(partial)
    syncToDisk(partial)
    await rename(partial, to)
    syncToDisk(dirname(to))
    return contents
  } catch (error) {
    await rm(partial, { force: true })
    if (error instanceof DatabaseFileError) throw error
    throw new DatabaseFileError(`${from} cannot be backed up to ${to}: ${messageOf(error)}`, { cause: error })
  }
}

/** Look whether a file is a whole database of Berth that this version can use. Throws DatabaseFileError. */
export function checkSqlite(file: string): DatabaseContents {
  const database = open(file)
  try {
    const fault = database.pragma('integrity_check(1)', { simple: true })
    if (fault !== 'ok') throw new DatabaseFileError(`${file} is damaged: ${String(fault)}`)
    const dangling = database.pragma('foreign_key_check') as { table: string }[]
    if (dangling.length > 0) throw new DatabaseFileError(`${file}: ${dangling.length} rows refer to what is not there`)
    return contentsOf(file, database)
  } catch (error) {
    if (error instanceof DatabaseFileError) throw error
    throw new DatabaseFileError(`${file} is not a database of Berth: ${messageOf(error)}`, { cause: error })
  } finally {
    database.close()
  }
}

function open(file: string): SqliteDatabase.Database {
  try {
    return new SqliteDatabase(file, { readonly: true, fileMustExist: true })
  } catch (error) {
    throw new DatabaseFileError(`${file} cannot be opened: ${messageOf(error)}`, { cause: error })
  }
}

function contentsOf(file: string, database: SqliteDatabase.Database): DatabaseContents {
  const known = Object.keys(migrations(sqliteColumnTypes))
  const done = database.prepare('select name from kysely_migration order by name').pluck().all() as string[]
  const unknown = done.find((name) => !known.includes(name))
  if (unknown !== undefined) {
    throw new DatabaseFileError(`${file} was written by a newer version of Berth (${unknown})`)
  }
  const number = (statement: string) => Number(database.prepare(statement).pluck().get() ?? 0)
  const hasEvents = number(`select count(*) from sqlite_schema where name = 'events'`) === 1
  return {
    schema: done.at(-1) ?? '',
    instances: number('select count(*) from instances where terminated_at is null'),
    operations: number('select count(*) from operations'),
    lastEvent: hasEvents ? number('select max(sequence) from events') : 0,
  }
}

/** https://man7.org/linux/man-pages/man2/fsync.2.html: a rename is durable when its directory is. */
function syncToDisk(path: string): void {
  const descriptor = openSync(path, 'r')
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
