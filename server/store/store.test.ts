import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { Store, type Transaction } from './store.ts'

const open: { store: Store; directory: string }[] = []
afterEach(async () => {
  for (const { store, directory } of open.splice(0)) {
    await store.close()
    rmSync(directory, { recursive: true })
  }
})

async function openStore(): Promise<{ store: Store; file: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'berth-test-'))
  const file = join(directory, 'test.db')
  const store = await Store.openSqlite(file)
  open.push({ store, directory })
  return { store, file }
}

async function insertVpc(tx: Transaction, id: string): Promise<void> {
  const row = { id, name: 'test', labels: '{}', created_at: 0, cidr: '10.0.0.0/16', is_default: 0 }
  await tx.db.insertInto('vpcs').values(row).execute()
  tx.changed(id)
}

const ids = async (db: Store['read']) =>
  (await db.selectFrom('vpcs').select('id').orderBy('id').execute()).map((row) => row.id)

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
  expect(second).toMatchObject({ reason: { code: 'SQLITE_CONSTRAINT_PRIMARYKEY' } })
  expect(await ids(store.read)).toEqual(['vpc-a', 'vpc-b'])
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
  await expect(store.read.deleteFrom('vpcs').execute()).rejects.toThrow(/readonly/)
})

test('what was committed is there after the file is opened again, and the schema is made once', async () => {
  const { store, file } = await openStore()
  await store.write((tx) => insertVpc(tx, 'vpc-a'))
  const second = await Store.openSqlite(file)
  expect(await ids(second.read)).toEqual(['vpc-a'])
  await second.close()
})

test('closing finishes the writes that wait', async () => {
  const { store, file } = await openStore()
  const writes = Array.from({ length: 100 }, (_, i) => store.write((tx) => insertVpc(tx, `vpc-${100 + i}`)))
  await store.close()
  await Promise.all(writes)
  const again = await Store.openSqlite(file)
  expect(await ids(again.read)).toHaveLength(100)
  await again.close()
})
