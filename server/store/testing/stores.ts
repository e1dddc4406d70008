import { afterAll, afterEach, beforeAll } from 'vitest'
import type { Store, StoreOptions } from '../store.ts'
import type { EngineUnderTest, TestDatabase } from './engines.ts'

/**
 * Start and stop an engine around the tests of a `describe`; gives the function that opens a store on a database of its
 * own, removed after the test.
 */
export function storesOn(engine: EngineUnderTest): (options?: StoreOptions) => Promise<Store> {
  const open: TestDatabase[] = []
  beforeAll(() => engine.start())
  afterAll(() => engine.stop())
  afterEach(async () => {
    for (const database of open.splice(0)) await database.remove()
  })
  return async (options) => {
    const database = await engine.create()
    open.push(database)
    return database.open(options)
  }
}
