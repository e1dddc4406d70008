import { copyFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Store } from '@berth/server/store/store.ts'
import SqliteDatabase from 'better-sqlite3'
import { Observer } from './tables.ts'

/** A database file with a look at it from outside. */
export interface DatabaseFile {
  file: string
  observer: Observer
}

/** One with the store that a server works with. */
export interface OpenDatabase extends DatabaseFile {
  store: Store
}

/**
 * The databases of many schedules. To open one costs as much as half a schedule, so one that no server was killed with
 * is given the template's rows again and used by the next schedule.
 */
export class Databases {
  readonly #directory: string
  readonly #template: string
  #idle: OpenDatabase | null = null
  #count = 0

  constructor(directory: string, template: string) {
    this.#directory = directory
    this.#template = template
  }

  /** A database with the template's rows. */
  async take(): Promise<OpenDatabase> {
    const idle = this.#idle
    this.#idle = null
    if (idle === null) return this.open(this.#copy(this.#template))
    this.#reset(idle.file)
    return idle
  }

  /** Take back one that nobody uses any more and that nothing is open in. */
  async giveBack(database: OpenDatabase): Promise<void> {
    if (this.#idle !== null) return this.discard(database)
    this.#idle = database
  }

  /** What the next process finds where this one was killed: the bytes that SQLite gave to the operating system. */
  remains(database: DatabaseFile): DatabaseFile {
    return this.#copy(database.file)
  }

  async open(database: DatabaseFile): Promise<OpenDatabase> {
    return { ...database, store: await Store.open(database.file) }
  }

  async discard({ file, observer, store }: DatabaseFile & { store?: Store }): Promise<void> {
    observer.close()
    await store?.close()
    for (const end of ['', '-wal', '-shm']) rmSync(`${file}${end}`, { force: true })
  }

  async close(): Promise<void> {
    if (this.#idle !== null) await this.discard(this.#idle)
    this.#idle = null
  }

  #copy(file: string): DatabaseFile {
    const copy = join(this.#directory, `server-${++this.#count}.db`)
    copyFileSync(file, copy)
    try {
      copyFileSync(`${file}-wal`, `${copy}-wal`)
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error
    }
    return { file: copy, observer: new Observer(copy) }
  }

  #reset(file: string): void {
    const db = new SqliteDatabase(file)
    db.pragma('foreign_keys = OFF')
    db.prepare('attach ? as template').run(this.#template)
    const tables = db
      .prepare<[], string>("select name from sqlite_schema where type = 'table' and name not like 'sqlite_%'")
      .pluck()
      .all()
    db.transaction(() => {
      for (const table of tables) {
        db.exec(`delete from main."${table}"; insert into main."${table}" select * from template."${table}"`)
      }
    })()
    db.close()
  }
}
