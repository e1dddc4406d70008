import { closeSync, fstatSync, openSync, statfsSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { Desired, ObservedRepair } from '@berth/contract/hosts/agent-protocol.ts'
import SqliteDatabase from 'better-sqlite3'
import Type, { type Static } from 'typebox'
import Value from 'typebox/value'
import { upgradeChecksums } from './image/earlier-versions.ts'
import { type InstanceRecord, upgradeRecord } from './instance/record.ts'

/** The ledger cannot be written, for the most part because its disk is full. Nothing was stored; it passes. */
export class LedgerUnavailable extends Error {
  constructor(cause: unknown) {
    super(`the ledger cannot be written: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
    this.name = 'LedgerUnavailable'
  }
}

/**
 * Room for a full disk: a WAL this long, and unused pages in the file, so that a checkpoint, after which the WAL is written
 * from its start again, has nothing to add to the file.
 */
const sparePages = { least: 64, added: 128 } as const
const walBytes = 2 * 1024 * 1024
const zeros = Buffer.alloc(256 * 1024)

/** A disk with less than this is full. */
const leastFreeBytes = 256 * 1024

/** Repairs of networks: the number of the last one, and those that the server may not have heard of. */
const RepairLog = Type.Object({ last: Type.Integer({ minimum: 0 }), pending: Type.Array(ObservedRepair) })
type RepairLog = Static<typeof RepairLog>

/**
 * The agent's memory: the last desired state it heard and one record an instance. Every save is on disk when it
 * returns (`synchronous=FULL`), so intent is durable before it is acted on and a host that restarts with the server
 * away knows what to run.
 */
export class Ledger {
  readonly #db: SqliteDatabase.Database
  readonly #directory: string
  readonly #save: SqliteDatabase.Statement<[string, string]>
  readonly #remove: SqliteDatabase.Statement<[string]>
  readonly #setMeta: SqliteDatabase.Statement<[string, string]>

  constructor(file: string) {
    this.#db = new SqliteDatabase(file)
    this.#db.pragma('journal_mode = WAL')
    this.#db.pragma('synchronous = FULL')
    this.#db.pragma('wal_autocheckpoint = 64')
    this.#directory = dirname(file)
    this.#db.exec(`
      create table if not exists meta (key text primary key not null, value text not null) strict;
      create table if not exists instances (id text primary key not null, record text not null) strict;
    `)
    lengthenWal(`${file}-wal`)
    const upsert = 'on conflict (id) do update set record = excluded.record'
    this.#save = this.#db.prepare(`insert into instances (id, record) values (?, ?) ${upsert}`)
    this.#remove = this.#db.prepare('delete from instances where id = ?')
    this.#setMeta = this.#db.prepare('insert or replace into meta (key, value) values (?, ?)')
  }

  /**
   * The last desired state, or null when none was heard or it is of another version of Berth. Fields that an earlier
   * version did not have yet get their defaults.
   */
  loadDesired(): Desired | null {
    const text = this.#getMeta('desired')
    if (text === null) return null
    const desired: unknown = Value.Default(Desired, upgradeDesired(JSON.parse(text)))
    return Value.Check(Desired, desired) ? desired : null
  }

  /** Throws LedgerUnavailable. */
  saveDesired(desired: Desired): void {
    const makesRoom = desired.instances.some(({ power }) => power !== 'running')
    this.#write(() => this.#setMeta.run('desired', JSON.stringify(desired)), makesRoom)
  }

  loadRepairs(): RepairLog {
    const log: unknown = JSON.parse(this.#getMeta('repairs') ?? '{ "last": 0, "pending": [] }')
    if (Value.Check(RepairLog, log)) return log
    return { last: Number(Reflect.get(Object(log), 'last') ?? 0), pending: [] } // of another version of Berth
  }

  /** Throws LedgerUnavailable. */
  saveRepairs(log: { last: number; pending: readonly ObservedRepair[] }): void {
    this.#write(() => this.#setMeta.run('repairs', JSON.stringify(log)), false)
  }

  /** This host's id, made by `create` the first time. */
  hostId(create: () => string): string {
    const existing = this.#getMeta('host_id')
    if (existing !== null) return existing
    const id = create()
    this.#setMeta.run('host_id', id)
    return id
  }

  /** A number above every one given before, also across restarts and clock steps; names this run of the agent. */
  nextSession(nowMs: number): number {
    const session = Math.max(nowMs, Number(this.#getMeta('session') ?? 0) + 1)
    this.#setMeta.run('session', String(session))
    return session
  }

  loadRecords(): InstanceRecord[] {
    const rows = this.#db.prepare<[], { record: string }>('select record from instances order by id').all()
    return rows.map((row) => {
      const record = JSON.parse(row.record)
      return upgradeRecord({ ...record, image: upgradeChecksums(record.image ?? null, 'desired') })
    })
  }

  /** Throws LedgerUnavailable; on a full disk, unless the instance is not starting or is wanted no more. */
  saveRecord(record: InstanceRecord, options: { leaving: boolean } = { leaving: false }): void {
    const makesRoom = options.leaving || record.power !== 'starting'
    this.#write(() => this.#save.run(record.id, JSON.stringify(record)), makesRoom)
  }

  /** Throws LedgerUnavailable. */
  removeRecord(id: string): void {
    this.#write(() => this.#remove.run(id), true)
  }

  close(): void {
    this.#db.close()
  }

  /** On a full disk, only what ends or removes something may use the room that the WAL has. */
  #write(write: () => void, makesRoom: boolean): void {
    try {
      if (!makesRoom) {
        if (this.#isFull()) throw new Error('the disk is full; only stops and deletes go on')
        this.#keepSparePages()
      }
      write()
    } catch (error) {
      throw new LedgerUnavailable(error)
    }
  }

  #keepSparePages(): void {
    if (Number(this.#db.pragma('freelist_count', { simple: true })) >= sparePages.least) return
    this.#db.exec(`
      insert or replace into meta (key, value) values ('spare', hex(zeroblob(${sparePages.added * 2048})));
      delete from meta where key = 'spare';
    `)
  }

  #isFull(): boolean {
    const { bavail, bsize } = statfsSync(this.#directory)
    return bavail * bsize < leastFreeBytes
  }

  #getMeta(key: string): string | null {
    const row = this.#db.prepare<[string], { value: string }>('select value from meta where key = ?').get(key)
    return row?.value ?? null
  }
}

/** What an earlier version stored, as far as it is another form of the same. */
function upgradeDesired(stored: unknown): unknown {
  const { images, removed_images: removed } = Object(stored)
  return {
    ...Object(stored),
    ...(Array.isArray(images) ? { images: images.map((image) => upgradeChecksums(image, 'desired')) } : {}),
    ...(Array.isArray(removed) ? { removed_images: removed.map((image) => upgradeChecksums(image, 'removed')) } : {}),
  }
}

/**
 * Make a WAL long while there is room. SQLite never shortens it and overwrites it from its start after each checkpoint
 * (https://sqlite.org/wal.html), so commits go on when the disk is full.
 */
function lengthenWal(path: string): void {
  try {
    const file = openSync(path, 'r+')
    try {
      // what stands behind the last commit is not read
      for (let { size } = fstatSync(file); size < walBytes; size += zeros.length) writeSync(file, zeros, 0, null, size)
    } finally {
      closeSync(file)
    }
  } catch {
    // the disk is full already
  }
}
