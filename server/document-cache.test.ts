import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { DocumentCache } from './document-cache.ts'
import { Store } from './store/store.ts'

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
      return { body, etag: '"1"' }
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
    const read = { body: 'old', etag: '"1"' }
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

test('the documents kept longest go when they are too many', async () => {
  const { get, rendered } = await openCache(100)
  for (const id of ['a', 'b', 'c']) await get(id, id.repeat(40))
  expect(await get('c', 'again')).toBe('c'.repeat(40))
  expect(await get('a', 'again')).toBe('again')
  expect(rendered()).toBe(4)
})

test('a document that cannot be rendered is not kept', async () => {
  const { cache, get } = await openCache()
  await expect(cache.get('inst-a', async () => Promise.reject(new Error('not found')))).rejects.toThrow('not found')
  expect(await get('inst-a', 'found')).toBe('found')
})
