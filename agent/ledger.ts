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
 * away knows what to run. What is only noted is on disk with the next save, or when `flush` returns: the disk is waited for
 * once for all that many instances have to tell (docs/decisions/0041).
 */
export class Ledger {
  readonly #db: SqliteDatabase.Database
  readonly #directory: string
  readonly #save: SqliteDatabase.Statement<[string, string]>
  readonly #remove: SqliteDatabase.Statement<[string]>
  readonly #setMeta: SqliteDatabase.Statement<[string, string]>
  readonly #setDesired: SqliteDatabase.Statement<[string, string]>
  readonly #removeDesired: SqliteDatabase.Statement<[string]>
  /** Records to be written, by id. */
  readonly #noted = new Map<string, { record: InstanceRecord; leaving: boolean }>()
  /** What the desired state says of each instance, as it is stored; null until that was read. */
  #desired: ReadonlyMap<string, string> | null = null

  constructor(file: string) {
    this.#db = new SqliteDatabase(file)
    this.#db.pragma('journal_mode = WAL')
    this.#db.pragma('synchronous = FULL')
    this.#db.pragma('wal_autocheckpoint = 64')
    this.#directory = dirname(file)
    this.#db.exec(`
      create table if not exists meta (key text primary key not null, value text not null) strict;
      create table if not exists instances (id text primary key not null, record text not null) strict;
      create table if not exists desired_instances (id text primary key not null, instance text not null) strict;
    `)
    lengthenWal(`${file}-wal`)
    const upsert = 'on conflict (id) do update set record = excluded.record'
    this.#save = this.#db.prepare(`insert into instances (id, record) values (?, ?) ${upsert}`)
    this.#remove = this.#db.prepare('delete from instances where id = ?')
    this.#setMeta = this.#db.prepare('insert or replace into meta (key, value) values (?, ?)')
    this.#setDesired = this.#db.prepare('insert or replace into desired_instances (id, instance) values (?, ?)')
    this.#removeDesired = this.#db.prepare('delete from desired_instances where id = ?')
  }

  /**
   * The last desired state, or null when none was heard or it is of another version of Berth. Fields that an earlier
   * version did not have yet get their defaults.
   */
  loadDesired(): Desired | null {
    const text = this.#getMeta('desired')
    if (text === null) return null
    const stored = JSON.parse(text) as { instances: unknown[] }
    // a version before this one had them all in that text
    const instances = [
      ...stored.instances,
      ...[...this.#loadDesiredInstances().values()].map((each) => JSON.parse(each)),
    ]
    const desired: unknown = Value.Default(Desired, upgradeDesired({ ...stored, instances }))
    return Value.Check(Desired, desired) ? desired : null
  }

  /** Writes what differs from the one before, whatever else the host has. Throws LedgerUnavailable. */
  saveDesired(desired: Desired): void {
    const before = this.#desired ?? this.#loadDesiredInstances()
    const wanted = new Map(desired.instances.map((instance) => [instance.id, JSON.stringify(instance)]))
    const makesRoom = desired.instances.some(({ power }) => power !== 'running')
    this.#commit(makesRoom, () => {
      for (const [id, text] of wanted) if (before.get(id) !== text) this.#setDesired.run(id, text)
      for (const id of before.keys()) if (!wanted.has(id)) this.#removeDesired.run(id)
      this.#setMeta.run('desired', JSON.stringify({ ...desired, instances: [] }))
    })
    this.#desired = wanted
  }

  loadRepairs(): RepairLog {
    const log: unknown = JSON.parse(this.#getMeta('repairs') ?? '{ "last": 0, "pending": [] }')
    if (Value.Check(RepairLog, log)) return log
    return { last: Number(Reflect.get(Object(log), 'last') ?? 0), pending: [] } // of another version of Berth
  }

  /** Throws LedgerUnavailable. */
  saveRepairs(log: { last: number; pending: readonly ObservedRepair[] }): void {
    this.#commit(false, () => this.#setMeta.run('repairs', JSON.stringify(log)))
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
    this.noteRecord(record, options)
    this.#commit(makesRoomFor(record, options), () => {})
  }

  /**
   * Have a record, as it is by then, written with the next save or `flush` that may. Throws LedgerUnavailable where a save
   * would for a full disk, so that a start goes no further on one; it is noted all the same.
   */
  noteRecord(record: InstanceRecord, options: { leaving: boolean } = { leaving: false }): void {
    this.#noted.set(record.id, { record, leaving: options.leaving })
    if (!makesRoomFor(record, options) && this.#isFull()) throw new LedgerUnavailable(diskFull())
  }

  /** Whether something was noted of an instance that is not on disk yet. */
  isNoted(id: string): boolean {
    return this.#noted.has(id)
  }

  /** Have all that was noted on disk; on a full one, what may be written there. Throws LedgerUnavailable. */
  flush(): void {
    if (this.#noted.size > 0) this.#commit(true, () => {})
  }

  /** Throws LedgerUnavailable. */
  removeRecord(id: string): void {
    this.#noted.delete(id)
    this.#commit(true, () => this.#remove.run(id))
  }

  /** What was only noted and cannot be written any more is lost, as it is when the agent is killed. */
  close(): void {
    try {
      this.flush()
    } finally {
      this.#db.close()
    }
  }

  /**
   * Write something, and with it what was noted, as one transaction. On a full disk, only what ends or removes something
   * may use the room that the WAL has; the rest stays noted.
   */
  #commit(makesRoom: boolean, write: () => void): void {
    try {
      const full = this.#isFull()
      if (full && !makesRoom) throw diskFull()
      if (!makesRoom) this.#keepSparePages()
      const notes = [...this.#noted.values()].filter((note) => !full || makesRoomFor(note.record, note))
      this.#db.transaction(() => {
        for (const { record } of notes) this.#save.run(record.id, JSON.stringify(record))
        write()
      })()
      for (const { record } of notes) this.#noted.delete(record.id)
    } catch (error) {
      throw new LedgerUnavailable(error)
    }
  }

  #loadDesiredInstances(): Map<string, string> {
    const rows = this.#db.prepare<[], { id: string; instance: string }>('select * from desired_instances order by id')
    return new Map(rows.all().map(({ id, instance }) => [id, instance]))
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

function diskFull(): Error {
  return new Error('the disk is full; only stops and deletes go on')
}

/** Whether a record may be written on a full disk: a start needs room for more than itself. */
function makesRoomFor(record: InstanceRecord, { leaving }: { leaving: boolean }): boolean {
  return leaving || record.power !== 'starting'
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
