import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Store, type StoreOptions } from '../store.ts'
import { type RunningPostgres, startPostgres } from './postgres-server.ts'

/** A database for one test: what `Store.open` takes, and what removes it. */
export interface TestDatabase {
  database: string
  open(options?: StoreOptions): Promise<Store>
  remove(): Promise<void>
}

/** Makes empty databases of one engine. */
export interface EngineUnderTest {
  name: 'sqlite' | 'postgres'
  start(): Promise<void>
  create(): Promise<TestDatabase>
  stop(): Promise<void>
}

/** The engines that the store's contract tests run on: the same tests for both. */
export const engines: readonly EngineUnderTest[] = [sqliteUnderTest(), postgresUnderTest()]

/** Databases in files of their own. */
export function sqliteUnderTest(): EngineUnderTest {
  return {
    name: 'sqlite',
    async start() {},
    async create() {
      const directory = mkdtempSync(join(tmpdir(), 'berth-test-'))
      return database(join(directory, 'test.db'), async () => rmSync(directory, { recursive: true, force: true }))
    },
    async stop() {},
  }
}

function postgresUnderTest(): EngineUnderTest {
  let server: RunningPostgres | null = null
  let count = 0
  return {
    name: 'postgres',
    async start() {
      server = await startPostgres()
    },
    async create() {
      if (server === null) throw new Error('start the engine first')
      const name = `test_${++count}`
      const running = server
      await running.query('postgres', `create database ${name}`)
      return database(running.url(name), async () => {
        await running.query('postgres', `drop database ${name} with (force)`)
      })
    },
    async stop() {
      await server?.stop()
      server = null
    },
  }
}

/** Stores that the test leaves open are closed with the database. */
function database(name: string, remove: () => Promise<void>): TestDatabase {
  const stores: Store[] = []
  return {
    database: name,
    async open(options) {
      const store = await Store.open(name, options)
      stores.push(store)
      return store
    },
    async remove() {
      for (const store of stores) await store.close().catch(() => undefined)
      await remove()
    },
  }
}
