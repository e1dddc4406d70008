import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { expectGolden } from '../../test/golden.ts'
import { getInstance, stateOf } from './instances/instances.ts'
import { dumpSchema } from './testing/dump-schema.ts'
import { engines, type TestDatabase } from './testing/engines.ts'

describe.each(engines)('the schema on $name', (engine) => {
  let database: TestDatabase
  beforeAll(async () => {
    await engine.start()
    database = await engine.create()
  })
  afterAll(async () => {
    await database.remove()
    await engine.stop()
  })

  test('is the one that is committed for reviewers', async () => {
    expectGolden(import.meta.dirname, `schema.${engine.name}.sql`, await dumpSchema(await database.open()))
  })

  test('is brought about once: a second start changes nothing', async () => {
    const first = await dumpSchema(await database.open())
    expect(await dumpSchema(await database.open())).toBe(first)
  })

  test('a database of a newer version is refused with a message that names it', async () => {
    const store = await database.open()
    await store.write(async (tx) => {
      await sql`insert into kysely_migration (name, timestamp) values ('9999-future', '2099-01-01')`.execute(tx.db)
    })
    await expect(database.open()).rejects.toThrow(/cannot be opened or brought to the current schema/)
  })
})

describe.each(['0001', '0002'])('an upgrade of a database of schema %s', (version) => {
  const open: TestDatabase[] = []
  afterEach(async () => {
    for (const database of open.splice(0)) await database.remove()
  })

  /** The database that a server of that schema wrote: web-1 runs, web-2 is stopped, one instance is terminated. */
  async function oldDatabase(): Promise<TestDatabase> {
    const [sqlite] = engines
    if (sqlite === undefined) throw new Error('SQLite is the first engine')
    const database = await sqlite.create()
    open.push(database)
    const file = new SqliteDatabase(database.database)
    file.pragma('journal_mode = WAL')
    file.pragma('foreign_keys = OFF') // the dump is in the order of the names
    file.exec(readFileSync(join(import.meta.dirname, 'testing', `database-${version}.sql`), 'utf8'))
    file.close()
    return database
  }

  test('keeps every row, and each instance gets the state it had', async () => {
    const database = await oldDatabase()
    const store = await database.open()
    const rows = await store.read.selectFrom('instances').select(['id', 'name', 'state']).orderBy('id').execute()
    expect(rows.map(({ name, state }) => [name, state])).toEqual([
      ['web-1', 'running'],
      ['web-2', 'stopped'],
      ['gone', 'terminated'],
    ])
    for (const row of rows) expect(stateOf(await getInstance(store.read, row.id))).toBe(row.state)
    expect(await store.read.selectFrom('instance_labels').selectAll().execute()).toHaveLength(3)
    expect(await store.read.selectFrom('operations').select('id').execute()).toHaveLength(5)
    expect(await store.read.selectFrom('instance_ssh_keys').selectAll().execute()).toHaveLength(1)
  })

  test('gives the schema of a new database, and what refers to what still does', async () => {
    const old = await oldDatabase()
    const [sqlite] = engines
    const fresh = await sqlite?.create()
    if (fresh === undefined) throw new Error('SQLite is the first engine')
    open.push(fresh)
    expect(await dumpSchema(await old.open())).toBe(await dumpSchema(await fresh.open()))
    const file = new SqliteDatabase(old.database)
    expect(file.pragma('foreign_key_check')).toEqual([])
    expect(file.pragma('integrity_check', { simple: true })).toBe('ok')
    file.close()
  })

  test('a subnet whose last instance is a tombstone can be deleted afterwards', async () => {
    const store = await (await oldDatabase()).open()
    const [row] = await store.read.selectFrom('instances').select('subnet_id').where('name', '=', 'gone').execute()
    await store.write(async (tx) => {
      await tx.db.deleteFrom('instances').where('name', '!=', 'gone').execute()
      await tx.db.deleteFrom('subnet_addresses').execute()
      await tx.db
        .deleteFrom('subnets')
        .where('id', '=', row?.subnet_id ?? '')
        .execute()
    })
    expect(await store.read.selectFrom('instances').select('name').execute()).toEqual([{ name: 'gone' }])
  })
})
