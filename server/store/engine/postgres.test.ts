import { type Kysely, sql } from 'kysely'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { Database } from '../schema.ts'
import { Store, type StoreOptions } from '../store.ts'
import { type PostgresProxy, startProxy } from '../testing/postgres-proxy.ts'
import { type RunningPostgres, startPostgres } from '../testing/postgres-server.ts'
import { codeOf, isStorageUnavailable } from './engine.ts'
import { openPostgres } from './postgres.ts'

let postgres: RunningPostgres
let proxy: PostgresProxy
let count = 0
const cleanUp: (() => Promise<void>)[] = []

beforeAll(async () => {
  postgres = await startPostgres()
  proxy = await startProxy(postgres.url)
})
afterEach(async () => {
  proxy.speak()
  for (const clean of cleanUp.splice(0).reverse()) await clean()
})
afterAll(async () => {
  await proxy.stop()
  await postgres.stop()
})

async function newDatabase(...settings: string[]): Promise<string> {
  const name = `engine_${++count}`
  await postgres.query('postgres', `create database ${name}`)
  for (const setting of settings) await postgres.query('postgres', `alter database ${name} set ${setting}`)
  return name
}

async function open(url: string, options: StoreOptions = {}): Promise<Store> {
  const store = await Store.open(url, options)
  cleanUp.push(() => store.close())
  return store
}

/** A session that is none of ours. */
async function otherSession(database: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: postgres.url(database) })
  client.on('error', () => undefined)
  await client.connect()
  cleanUp.push(() => client.end())
  return client
}

const writerLock = 0x6265727468

/** Resolves when somebody waits for a lock that this session holds. */
async function untilBlocked(session: pg.Client): Promise<void> {
  const blocked = 'select 1 from pg_locks where not granted and pg_backend_pid() = any(pg_blocking_pids(pid))'
  while ((await session.query(blocked)).rows.length === 0);
}

const insertMark = (name: string) => (tx: { db: Kysely<Database> }) =>
  sql`insert into kysely_migration_lock values (${name}, 0)`.execute(tx.db)

async function marks(store: Store): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`select id from kysely_migration_lock order by id`.execute(store.read)
  return rows.map(({ id }) => id).filter((id) => id !== 'migration_lock')
}

const outcome = (work: Promise<unknown>) =>
  work.then(
    () => 'done',
    (error: unknown) => (isStorageUnavailable(error) ? 'unavailable' : error),
  )

/** Ask again until it is done; gives how often it was refused as passing. */
async function stubbornly(work: () => Promise<unknown>): Promise<number> {
  for (let refused = 0; ; refused++) {
    const how = await outcome(work())
    if (how === 'done') return refused
    expect(how).toBe('unavailable')
  }
}

test('a row that another session holds refuses who writes it, and takes nothing of who shares the commit', async () => {
  const database = await newDatabase()
  const store = await open(postgres.url(database), { postgres: { lockMs: 300 } })
  const other = await otherSession(database)
  await other.query('begin')
  await other.query("update kysely_migration_lock set is_locked = 0 where id = 'migration_lock'")
  const held = () => store.canWrite()
  const all = [store.write(insertMark('a')), ...Array.from({ length: 20 }, held), store.write(insertMark('b'))]
  const codes = await Promise.all(all.map((each) => each.then(() => '', codeOf)))
  expect(codes).toEqual(['', ...Array.from({ length: 20 }, () => '55P03'), ''])
  expect(isStorageUnavailable(await held().catch((error: unknown) => error))).toBe(true)
  expect(await marks(store)).toEqual(['a', 'b'])
  await other.query('rollback')
  await held()
})

test('only the first lock of a commit is waited for in full', async () => {
  const database = await newDatabase()
  const engine = openPostgres(postgres.url(database), { lockMs: 30_000 })
  cleanUp.push(() => engine.close())
  const locks = await engine.transaction(async (db) => {
    const read = async () => (await sql<{ lock_timeout: string }>`show lock_timeout`.execute(db)).rows[0]?.lock_timeout
    const before = await read()
    await engine.waitLess(db)
    return [before, await read()]
  })
  expect(locks).toEqual(['30s', '50ms'])
  const again = await engine.transaction((db) => sql`show lock_timeout`.execute(db))
  expect(again.rows).toEqual([{ lock_timeout: '30s' }])
})

test("a writers' lock that is not given up is unavailable within the bound, also for those far back in the queue", async () => {
  const database = await newDatabase()
  const store = await open(postgres.url(database), { postgres: { lockMs: 200 } })
  const other = await otherSession(database)
  await other.query(`select pg_advisory_lock(${writerLock})`)
  let commits = 0
  const writes = Array.from({ length: 1000 }, () => outcome(store.write(async () => commits++)))
  expect(new Set(await Promise.all(writes))).toEqual(new Set(['unavailable'])) // 16 commits, each of which would wait
  expect(commits).toBe(0)
  await other.query(`select pg_advisory_unlock(${writerLock})`)
  expect(await outcome(store.canWrite())).toBe('done')
})

test('a statement that is stopped or chosen as the victim of a deadlock may be tried again', async () => {
  const database = await newDatabase()
  const store = await open(postgres.url(database), { postgres: { statementMs: 100 } })
  expect(codeOf(await store.write(({ db }) => sql`select pg_sleep(60)`.execute(db)).catch((error) => error))).toBe(
    '57014',
  )
  const other = await otherSession(database)
  await other.query("set deadlock_timeout = '1h'") // the other one is the victim
  await other.query("insert into kysely_migration_lock values ('x', 0), ('y', 0)")
  await other.query("begin; update kysely_migration_lock set is_locked = 1 where id = 'x'")
  const patient = await open(postgres.url(database), {
    postgres: { lockMs: 60_000, statementMs: 60_000, answerMs: 60_000 },
  })
  const victim = patient.write(async ({ db }) => {
    await sql`update kysely_migration_lock set is_locked = 2 where id = 'y'`.execute(db)
    await sql`update kysely_migration_lock set is_locked = 2 where id = 'x'`.execute(db)
  })
  victim.catch(() => undefined)
  await untilBlocked(other)
  await other.query("update kysely_migration_lock set is_locked = 1 where id = 'y'; commit")
  const error: unknown = await victim.catch((thrown: unknown) => thrown)
  expect({ code: codeOf(error), unavailable: isStorageUnavailable(error) }).toEqual({
    code: '40P01',
    unavailable: true,
  })
})

test('a connection that falls silent within a transaction is given up, and what it held with it', async () => {
  const database = await newDatabase()
  const bounds = { answerMs: 1000, lockMs: 1000, idleInTransactionMs: 1500 }
  const store = await open(proxy.url(database), { postgres: bounds })
  const silent = store.write(async (tx) => {
    await insertMark('silent')(tx)
    proxy.fallSilent('open')
    await sql`select 1`.execute(tx.db)
  })
  expect(await outcome(silent)).toBe('unavailable')
  // nobody tells PostgreSQL that the client has gone: its session waits in the transaction, with the writers' lock
  await stubbornly(() => store.write(insertMark('after')))
  expect(await marks(store)).toEqual(['after'])
})

test('readers whose connections fall silent are told so, and read on over new ones', async () => {
  const database = await newDatabase()
  const store = await open(proxy.url(database), { postgres: { answerMs: 1000 } })
  const read = () => store.canRead()
  expect(new Set(await Promise.all(Array.from({ length: 20 }, () => outcome(read()))))).toEqual(new Set(['done']))
  proxy.fallSilent('open')
  const answers = await Promise.all(Array.from({ length: 8 }, () => outcome(read())))
  expect(answers).toEqual(Array.from({ length: 8 }, () => 'unavailable'))
  expect(await outcome(read())).toBe('done')
})

test('a network that is silent for all answers every write within the bounds, and none is left behind', async () => {
  const database = await newDatabase()
  const store = await open(proxy.url(database), { postgres: { answerMs: 500, connectMs: 500 } })
  await store.canWrite()
  proxy.fallSilent('all')
  const writes = Array.from({ length: 500 }, () => outcome(store.canWrite()))
  expect(new Set(await Promise.all(writes))).toEqual(new Set(['unavailable']))
  expect(store.queueLength).toBe(0)
  expect(await outcome(store.canRead())).toBe('unavailable')
  proxy.speak()
  await stubbornly(() => store.canWrite())
  await stubbornly(() => store.canRead())
})

test('a commit whose answer never comes is unavailable, is done all the same, and listeners are told to look', async () => {
  const database = await newDatabase()
  const store = await open(proxy.url(database), { postgres: { answerMs: 1000 } })
  const told: string[] = []
  store.onChange((ids) => told.push(...ids))
  const lost = proxy.loseNextCommit('silence')
  const how = outcome(
    store.write(async (tx) => {
      await insertMark('committed')(tx)
      tx.wake('x')
    }),
  )
  await lost
  expect(await how).toBe('unavailable')
  expect(told).toEqual(['x'])
  expect(await marks(store)).toEqual(['committed'])
})

test('what is set for the database or the role does not change what the store relies on', async () => {
  const database = await newDatabase(
    "default_transaction_isolation = 'repeatable read'",
    'default_transaction_read_only = on',
    'default_transaction_deferrable = on',
    "lock_timeout = '7s'",
    "statement_timeout = '7s'",
    "transaction_timeout = '7s'",
    "idle_in_transaction_session_timeout = '7s'",
    'session_replication_role = replica',
    'synchronous_commit = off',
    'standard_conforming_strings = off',
    'bytea_output = escape',
    'client_encoding = latin1',
    "TimeZone = 'Asia/Kathmandu'",
    "DateStyle = 'SQL, DMY'",
    'extra_float_digits = -15',
  )
  const store = await open(postgres.url(database))
  const names = [
    'default_transaction_isolation',
    'default_transaction_read_only',
    'lock_timeout',
    'statement_timeout',
    'idle_in_transaction_session_timeout',
    'session_replication_role',
    'synchronous_commit',
    'standard_conforming_strings',
    'bytea_output',
    'client_encoding',
    'TimeZone',
  ]
  const settings = async (db: Kysely<Database>) => {
    const asked = names.map((name) => sql`select current_setting(${name}) as value`)
    const { rows } = await sql<{ value: string }>`${sql.join(asked, sql` union all `)}`.execute(db)
    return rows.map(({ value }) => value)
  }
  const rest = ['5s', '10s', '10s', 'origin', 'on', 'on', 'hex', 'UTF8', 'UTC']
  expect(await settings(store.read)).toEqual(['read committed', 'on', ...rest])
  expect(await store.write(({ db }) => settings(db))).toEqual(['read committed', 'off', ...rest])
  await store.write(insertMark('ä\\\u{1F600}'))
  expect(await marks(store)).toEqual(['ä\\\u{1F600}'])
  await postgres.query('postgres', `alter database ${database} set synchronous_commit = local`)
  const local = await open(postgres.url(database))
  const { rows } = await local.write(({ db }) => sql`show synchronous_commit`.execute(db))
  expect(rows).toEqual([{ synchronous_commit: 'local' }])
})

test('a write that waited for another writer sees what that one has left, whatever isolation the database has', async () => {
  for (const isolation of ['repeatable read', 'serializable']) {
    const database = await newDatabase(`default_transaction_isolation = '${isolation}'`)
    const store = await open(postgres.url(database))
    const other = await otherSession(database)
    await other.query(`begin; select pg_advisory_xact_lock(${writerLock})`)
    const seen = store.write(({ db }) =>
      sql`update kysely_migration_lock set is_locked = is_locked + 1 returning is_locked`.execute(db),
    )
    await untilBlocked(other)
    await other.query('update kysely_migration_lock set is_locked = 7; commit')
    expect((await seen).rows).toEqual([{ is_locked: 8 }])
  }
})

test('the tables are found where they are when the search path is changed, and never made a second time', async () => {
  const database = await newDatabase()
  const first = await open(postgres.url(database))
  await first.write(insertMark('here'))
  await postgres.query(database, 'create schema "Else where"')
  await postgres.query('postgres', `alter database ${database} set search_path = "Else where", public`)
  expect(await marks(await open(postgres.url(database)))).toEqual(['here'])
  await postgres.query('postgres', `alter database ${database} set search_path = ''`)
  expect(await marks(await open(postgres.url(database)))).toEqual(['here'])
})

test('an empty database gets its tables where the search path leads, and one that leads nowhere is named', async () => {
  const database = await newDatabase('search_path = "Berth"')
  const nowhere = await Store.open(postgres.url(database)).catch((error: Error) => error)
  expect(String(Object(Object(nowhere).cause).cause)).toContain('search_path')
  await postgres.query(database, 'create schema "Berth"')
  await open(postgres.url(database))
  const schemas = await postgres.query(database, "select schemaname from pg_tables where tablename = 'instances'")
  expect(schemas).toEqual([{ schemaname: 'Berth' }])
})

test('the tables of another program with migrations by the same library are left alone', async () => {
  const database = await newDatabase()
  await postgres.query(database, 'create schema other; create table other.kysely_migration (name text, timestamp text)')
  await postgres.query(database, "insert into other.kysely_migration values ('0001-theirs', '2024-01-01T00:00:00Z')")
  const store = await open(postgres.url(database))
  await store.write(insertMark('ours'))
  expect(await marks(await open(postgres.url(database)))).toEqual(['ours'])
  expect(await postgres.query(database, 'select name from other.kysely_migration')).toEqual([{ name: '0001-theirs' }])
})

test('migrations have no bound for a statement, and keep every writer out', async () => {
  const database = await newDatabase()
  const engine = openPostgres(postgres.url(database), { statementMs: 100, answerMs: 100, lockMs: 100 })
  const writer = openPostgres(postgres.url(database), { lockMs: 100 })
  cleanUp.push(
    () => engine.close(),
    () => writer.close(),
  )
  await engine.migrate(async (db) => {
    await sql`select pg_sleep(0.5)`.execute(db)
    expect(await outcome(writer.transaction((tx) => sql`select 1`.execute(tx)))).toBe('unavailable')
  })
  expect(await outcome(writer.transaction((tx) => sql`select 1`.execute(tx)))).toBe('done')
})

test('servers that start at once on an empty database make its tables once, each waiting for the one before and saying so', async () => {
  const database = await newDatabase()
  const other = await otherSession(database)
  await other.query(`select pg_advisory_lock(${writerLock})`)
  const ran: number[] = []
  const { promise: long, resolve } = Promise.withResolvers<boolean>()
  const migrations = {
    longMs: 50,
    migrating: (_durationMs: number, waiting: boolean) => resolve(waiting),
    migrated: (names: readonly string[]) => ran.push(names.length),
  }
  const options = { migrations, postgres: { lockMs: 200 } }
  const stores = Array.from({ length: 4 }, () => open(postgres.url(database), options))
  expect(await long).toBe(true)
  await untilBlocked(other)
  expect(ran).toEqual([])
  await other.query(`select pg_advisory_unlock(${writerLock})`)
  for (const store of await Promise.all(stores)) await store.canWrite()
  expect(ran).toHaveLength(1)
})

test('a transaction that PostgreSQL ends with a rollback is not taken for committed', async () => {
  const engine = openPostgres(postgres.url(await newDatabase()))
  cleanUp.push(() => engine.close())
  const swallowed = engine.transaction((db) => sql`select 1 / 0`.execute(db).catch(() => 'as if nothing had happened'))
  await expect(swallowed).rejects.toThrow('rolled back')
  expect((await engine.transaction((db) => sql`select 1 as one`.execute(db))).rows).toEqual([{ one: 1 }])
})

test('whatever keeps a connection from coming about passes, and what it was is in the cause', async () => {
  const database = await newDatabase()
  await postgres.query('postgres', `create role ${database} login in role berth`)
  const url = postgres.url(database).replace('berth@', `${database}@`)
  const store = await open(url)
  const other = await otherSession('postgres')
  await other.query(`alter role ${database} nologin`)
  await other.query(`select pg_terminate_backend(pid) from pg_stat_activity where usename = '${database}'`)
  let last: unknown = null
  for (const work of [() => store.canRead(), () => store.canWrite()]) {
    // the first may meet the connection that has ended just now
    for (let i = 0; i < 10; i++) {
      last = await work().catch((error: unknown) => error)
      expect(isStorageUnavailable(last)).toBe(true)
    }
  }
  expect(codeOf(Object(last).cause)).toBe('28000')
  await other.query(`alter role ${database} login`)
  await stubbornly(() => store.canWrite())
})

test('a standby is not written and not read, and the primary that it becomes is', async () => {
  const store = await open(postgres.url(await newDatabase()))
  await store.write(insertMark('before'))
  await postgres.demote()
  const standby = () => outcome(Promise.all([store.canRead(), store.canWrite()]))
  expect([await standby(), await standby()]).toEqual(['unavailable', 'unavailable'])
  await postgres.query('postgres', 'select pg_promote()')
  await stubbornly(() => store.write(insertMark('after')))
  await stubbornly(async () => expect(await marks(store)).toEqual(['after', 'before']))
})
