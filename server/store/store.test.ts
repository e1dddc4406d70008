import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { ApiError } from '../api-error.ts'
import { Store } from './store.ts'
import { engines, type TestDatabase } from './testing/engines.ts'
import type { Transaction } from './transaction.ts'

async function insertVpc(tx: Transaction, id: string): Promise<void> {
  const row = {
    id,
    name: 'test',
    labels: '{}',
    created_at: 0,
    cidr: '10.0.0.0/16',
    is_default: 0,
    uid: '',
    generation: 1,
  }
  await tx.db.insertInto('vpcs').values(row).execute()
  tx.changed({ resource: 'vpc', id, action: 'created' })
}

const ids = async (db: Store['read']) =>
  (await db.selectFrom('vpcs').select('id').orderBy('id').execute()).map((row) => row.id)

describe.each(engines)('the store on $name', (engine) => {
  const open: TestDatabase[] = []
  beforeAll(() => engine.start())
  afterAll(() => engine.stop())
  afterEach(async () => {
    for (const database of open.splice(0)) await database.remove()
  })

  async function openStore(): Promise<{ store: Store; database: string }> {
    const made = await engine.create()
    open.push(made)
    return { store: await made.open(), database: made.database }
  }

  test('a write gives its result, and a read after it sees it', async () => {
    const { store } = await openStore()
    expect(await store.write(async (tx) => insertVpc(tx, 'vpc-a').then(() => 7))).toBe(7)
    expect(await ids(store.read)).toEqual(['vpc-a'])
  })

  test('a write that fails leaves nothing, and those beside it in the commit are kept', async () => {
    const { store } = await openStore()
    const results = await Promise.allSettled(
      Array.from({ length: 10 }, (_, i) =>
        store.write(async (tx) => {
          await insertVpc(tx, `vpc-${i}`)
          if (i % 2 === 1) throw new Error(`refused ${i}`)
          return i
        }),
      ),
    )
    expect(results.map((result) => (result.status === 'fulfilled' ? result.value : String(result.reason)))).toEqual(
      Array.from({ length: 10 }, (_, i) => (i % 2 === 1 ? `Error: refused ${i}` : i)),
    )
    expect(await ids(store.read)).toEqual(['vpc-0', 'vpc-2', 'vpc-4', 'vpc-6', 'vpc-8'])
  })

  test('one that breaks a constraint fails alone, with an error that says so', async () => {
    const { store } = await openStore()
    const results = await Promise.allSettled([
      store.write((tx) => insertVpc(tx, 'vpc-a')),
      store.write((tx) => insertVpc(tx, 'vpc-a')),
      store.write((tx) => insertVpc(tx, 'vpc-b')),
    ])
    expect(results.map((result) => result.status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    const [, second] = results
    expect(second).toMatchObject({
      reason: { code: engine.name === 'sqlite' ? 'SQLITE_CONSTRAINT_PRIMARYKEY' : '23505' },
    })
    expect(await ids(store.read)).toEqual(['vpc-a', 'vpc-b'])
  })

  test('when the database ends the whole transaction, nobody in it is told what another was refused', async () => {
    const { store } = await openStore()
    const refused = new ApiError('not_found', 'There is no such thing.')
    const results = await Promise.allSettled([
      store.write((tx) => insertVpc(tx, 'vpc-a')),
      store.write(async (tx) => {
        await sql`rollback`.execute(tx.db)
        throw refused
      }),
      store.write((tx) => insertVpc(tx, 'vpc-b')),
    ])
    expect(results.map((result) => result.status)).toEqual(['rejected', 'rejected', 'rejected'])
    for (const result of results) expect(result).not.toMatchObject({ reason: refused })
    expect(await ids(store.read)).toEqual([])
    await store.write((tx) => insertVpc(tx, 'vpc-c'))
    expect(await ids(store.read)).toEqual(['vpc-c'])
  })

  test('one that throws before it waits for anything fails alone too', async () => {
    const { store } = await openStore()
    const thrown = store.write(() => {
      throw new Error('at once')
    })
    const kept = store.write((tx) => insertVpc(tx, 'vpc-a'))
    await expect(thrown).rejects.toThrow('at once')
    await kept
    expect(await ids(store.read)).toEqual(['vpc-a'])
  })

  test('a caller sees its own writes and those before it, nobody else sees them before the commit', async () => {
    const { store } = await openStore()
    const seen: string[][] = []
    await Promise.all([
      store.write((tx) => insertVpc(tx, 'vpc-a')),
      store.write(async (tx) => {
        await insertVpc(tx, 'vpc-b')
        seen.push(await ids(tx.db), await ids(store.read))
      }),
    ])
    expect(seen).toEqual([['vpc-a', 'vpc-b'], []])
    expect(await ids(store.read)).toEqual(['vpc-a', 'vpc-b'])
  })

  test('writes run one after the other, in the order they came, also over many commits', async () => {
    const { store } = await openStore()
    const order: number[] = []
    let running = 0
    await Promise.all(
      Array.from({ length: 200 }, (_, i) =>
        store.write(async (tx) => {
          expect(running++).toBe(0)
          await ids(tx.db)
          order.push(i)
          running--
        }),
      ),
    )
    expect(order).toEqual(Array.from({ length: 200 }, (_, i) => i))
  })

  test('changes are published after the commit, once, and only those that were committed', async () => {
    const { store } = await openStore()
    const published: { changed: string[]; visible: Promise<string[]> }[] = []
    store.onChange((changed) => published.push({ changed: [...changed].sort(), visible: ids(store.read) }))
    await Promise.allSettled([
      store.write((tx) => insertVpc(tx, 'vpc-a')),
      store.write(async (tx) => {
        await insertVpc(tx, 'vpc-lost')
        throw new Error('refused')
      }),
      store.write((tx) => insertVpc(tx, 'vpc-b')),
      store.write(async (tx) => ids(tx.db)),
    ])
    expect(published.flatMap((each) => each.changed)).toEqual(['vpc-a', 'vpc-b'])
    for (const { changed, visible } of published) expect(await visible).toEqual(expect.arrayContaining(changed))
  })

  test('a listener hears nothing of a commit that changed nothing, nor after it was taken off', async () => {
    const { store } = await openStore()
    let heard = 0
    const stop = store.onChange(() => heard++)
    await store.write(async (tx) => ids(tx.db))
    expect(heard).toBe(0)
    await store.write((tx) => insertVpc(tx, 'vpc-a'))
    stop()
    await store.write((tx) => insertVpc(tx, 'vpc-b'))
    expect(heard).toBe(1)
  })

  test('a listener is told before the caller is answered', async () => {
    const { store } = await openStore()
    const order: string[] = []
    store.onChange(() => order.push('published'))
    await store.write((tx) => insertVpc(tx, 'vpc-a')).then(() => order.push('answered'))
    expect(order).toEqual(['published', 'answered'])
  })

  test('a write that comes while another runs is done too', async () => {
    const { store } = await openStore()
    let second: Promise<void> = Promise.resolve()
    await store.write(async (tx) => {
      second = store.write((inner) => insertVpc(inner, 'vpc-b'))
      await insertVpc(tx, 'vpc-a')
    })
    await second
    expect(await ids(store.read)).toEqual(['vpc-a', 'vpc-b'])
  })

  test('a read cannot write', async () => {
    const { store } = await openStore()
    await expect(store.read.deleteFrom('vpcs').execute()).rejects.toThrow(/readonly|read-only/)
  })

  test('what was committed is there after the file is opened again, and the schema is made once', async () => {
    const { store, database } = await openStore()
    await store.write((tx) => insertVpc(tx, 'vpc-a'))
    const second = await Store.open(database)
    expect(await ids(second.read)).toEqual(['vpc-a'])
    await second.close()
  })

  test('closing finishes the writes that wait', async () => {
    const { store, database } = await openStore()
    const writes = Array.from({ length: 100 }, (_, i) => store.write((tx) => insertVpc(tx, `vpc-${100 + i}`)))
    await store.close()
    await Promise.all(writes)
    const again = await Store.open(database)
    expect(await ids(again.read)).toHaveLength(100)
    await again.close()
  })
})
