import { newId } from '@berth/contract/ids.ts'
import { Store } from '@berth/server/store/store.ts'
import SqliteDatabase from 'better-sqlite3'
import { serveParent } from './child.ts'
import { inserter, insertInstance, insertShared } from './seed.ts'

export interface CommitsArgument {
  database: string
}

/** Bare SQLite: the rows that one create leaves behind, one durable commit for each, one after the other. */
await serveParent<CommitsArgument>(async ({ database: file }) => {
  await (await Store.open(file)).close()
  const database = new SqliteDatabase(file)
  // as server/store/engine/sqlite.ts sets them
  for (const pragma of ['journal_mode = WAL', 'synchronous = FULL', 'foreign_keys = ON', 'temp_store = MEMORY'])
    database.pragma(pragma)
  const insert = inserter(database)
  insertShared(insert, 8, Date.now())
  const takeOffset = database.prepare("update subnets set next_offset = next_offset + 1 where id = 'subnet-0'")
  let n = 0
  const create = database.transaction(() => {
    const at = Date.now()
    takeOffset.run()
    insertInstance(insert, { id: newId('inst', at), n: n++, at, running: false })
  })
  return {
    ready: {},
    answers: {
      run: async ({ durationMs }: { durationMs: number }) => {
        const startedAt = performance.now()
        let commits = 0
        while (performance.now() - startedAt < durationMs) {
          create.immediate()
          commits++
        }
        return { commits, perSecond: (commits / (performance.now() - startedAt)) * 1000 }
      },
    },
    stop: async () => {
      database.close()
    },
  }
})
