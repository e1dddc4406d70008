import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Readiness } from './readiness.ts'
import { engines } from './store/testing/engines.ts'

const boundMs = 300

describe.each(engines)('readiness on $name', (engine) => {
  beforeAll(() => engine.start())
  afterAll(() => engine.stop())

  test('a database that is read and written is ready', async () => {
    const database = await engine.create()
    const readiness = new Readiness(await database.open(), boundMs)
    expect(await readiness.check()).toEqual([])
    await database.remove()
  })

  test('a database that is gone is neither read nor written', async () => {
    const database = await engine.create()
    const store = await database.open()
    expect(await new Readiness(store, boundMs).check()).toEqual([])
    await store.close()
    expect((await new Readiness(store, boundMs).check()).map(({ part }) => part)).toEqual([
      'database_read',
      'database_write',
    ])
    await database.remove()
  })

  test('a process that stops is not ready, whatever its database', async () => {
    const database = await engine.create()
    const readiness = new Readiness(await database.open(), boundMs)
    expect(await readiness.check()).toEqual([])
    readiness.stop()
    expect(await readiness.check()).toEqual([{ part: 'process', message: 'the server is stopping' }])
    await database.remove()
  })

  test('checks at the same moment share their commits', async () => {
    const database = await engine.create()
    const commits: number[] = []
    const store = await database.open({
      observer: {
        committed: ({ kept }) => commits.push(kept),
        commitFailed() {},
        operationOpened() {},
        operationEnded() {},
      },
    })
    const readiness = new Readiness(store, boundMs)
    await Promise.all(Array.from({ length: 50 }, () => readiness.check()))
    await readiness.check() // the good answer of a moment ago
    expect(commits).toEqual([1])
    await database.remove()
  })
})

describe('a database that hangs', () => {
  const engine = engines.find(({ name }) => name === 'postgres')
  if (engine === undefined) throw new Error('there is no engine that can hang without blocking this process')
  beforeAll(() => engine.start())
  afterAll(() => engine.stop())

  test('is not ready within the bound, is not asked a second time, and is ready again when it goes on', async () => {
    const database = await engine.create()
    const store = await database.open()
    const readiness = new Readiness(store, boundMs)
    const other = new pg.Client({ connectionString: database.database })
    await other.connect()
    await other.query('begin')
    await other.query('lock table kysely_migration_lock in exclusive mode') // reads pass, writes wait
    const unready = { part: 'database_write', message: `the database cannot be written within ${boundMs} ms` }
    expect(await readiness.check()).toEqual([unready])
    expect(await readiness.check()).toEqual([unready])
    expect(store.queueLength).toBe(0) // a second write would wait behind the one that hangs
    await other.query('rollback')
    await other.end()
    expect(await readiness.check()).toEqual([])
    await database.remove()
  })
})
