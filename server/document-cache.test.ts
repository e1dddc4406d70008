import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { DocumentCache } from './document-cache.ts'
import { getInstance, insertInstance, updateMetadata } from './store/instances/instances.ts'
import { listInstanceIds } from './store/instances/list.ts'
import { Store } from './store/store.ts'
import { storedInstance } from './store/testing/instances.ts'

const ends: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const end of ends.splice(0)) await end()
})

/** A cache over a store, and a counter of what had to be rendered. */
async function openCache(limit?: number) {
  const directory = mkdtempSync(join(tmpdir(), 'berth-test-'))
  const store = await Store.open(join(directory, 'test.db'))
  ends.push(async () => {
    await store.close()
    rmSync(directory, { recursive: true, force: true })
  })
  const cache = new DocumentCache(store, limit)
  let rendered = 0
  const get = async (id: string, body = id) => {
    const document = await cache.get(id, async () => {
      rendered++
      return { id, body, etag: '"1"' }
    })
    return document.body
  }
  const change = (id: string) =>
    store.write(async (tx) => tx.changed({ resource: 'instance', id, action: 'updated', detail: {} }))
  return { store, cache, get, change, rendered: () => rendered }
}

test('a document is rendered once, until a commit changes its resource', async () => {
  const { get, change, rendered } = await openCache()
  expect([await get('inst-a', 'old'), await get('inst-a', 'never asked for')]).toEqual(['old', 'old'])
  await change('inst-b')
  expect(await get('inst-a', 'never asked for')).toBe('old')
  expect(rendered()).toBe(1)
  await change('inst-a')
  expect(await get('inst-a', 'new')).toBe('new')
})

test('what was read before a commit and comes in after it is given out, but not kept', async () => {
  const { cache, get, change } = await openCache()
  const document = await cache.get('inst-a', async () => {
    const read = { id: 'inst-a', body: 'old', etag: '"1"' }
    await change('inst-a')
    return read
  })
  expect(document.body).toBe('old')
  expect(await get('inst-a', 'new')).toBe('new')
})

test('a caller who was answered for a change never gets what was before it', async () => {
  const { get, change } = await openCache()
  let version = 0
  for (let turn = 0; turn < 200; turn++) {
    const readers = Array.from({ length: 4 }, () => get('inst-a', String(version)))
    version++
    await change('inst-a')
    expect(Number(await get('inst-a', String(version)))).toBe(version)
    await Promise.all(readers)
  }
})

test('a document goes when those asked for after it need its room', async () => {
  const { get, rendered } = await openCache(1024 * 1024)
  for (const id of ['a', 'b', 'c']) await get(id, id.repeat(500_000))
  expect(await get('c', 'again')).toBe('c'.repeat(500_000))
  expect(await get('a', 'again')).toBe('again')
  expect(rendered()).toBe(4)
})

test('a document that cannot be rendered is not kept', async () => {
  const { cache, get } = await openCache()
  await expect(cache.get('inst-a', async () => Promise.reject(new Error('not found')))).rejects.toThrow('not found')
  expect(await get('inst-a', 'found')).toBe('found')
})

test('a list shows its items as they were when it found them, whatever is committed meanwhile', async () => {
  const { store, cache } = await openCache()
  const ids = Array.from({ length: 20 }, (_, n) => `inst-${String(n).padStart(2, '0')}`)
  await store.write(async (tx) => {
    for (const id of ids) await insertInstance(tx, storedInstance(id, { labels: { env: 'x' } }))
  })
  const filter = { labels: [{ operator: 'in', key: 'env', values: ['x'] }] } as const
  const listLabelled = async (microtasks: number) => {
    for (let n = 0; n < microtasks; n++) await null // a commit takes several: begin within each of them
    return cache.list(
      () => listInstanceIds(store.read, filter, { limit: 100 }),
      async (id) => ({ id, body: (await getInstance(store.read, id)).labels.env ?? '', etag: '""' }),
    )
  }
  let found = 0
  for (let turn = 0; turn < 40; turn++) {
    const lists: ReturnType<typeof listLabelled>[] = []
    const listWhileCommitting = () => {
      for (let microtasks = 0; microtasks < 40; microtasks++) lists.push(listLabelled(microtasks))
    }
    listWhileCommitting()
    await store.write(async (tx) => {
      for (const id of ids.filter((_, n) => n % 2 === turn % 2)) {
        const instance = await getInstance(tx.db, id)
        const env = instance.labels.env === 'x' ? 'y' : 'x'
        await updateMetadata(tx, instance, { name: instance.name, labels: { env } })
      }
      listWhileCommitting()
    })
    for (const list of await Promise.all(lists)) {
      found += list.length
      expect(new Set(list.map(({ body }) => body)).difference(new Set(['x']))).toEqual(new Set())
    }
  }
  expect(found).toBeGreaterThan(1000)
})
