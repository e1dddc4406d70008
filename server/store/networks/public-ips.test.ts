import { describe, expect, test } from 'vitest'
import { listEvents } from '../events.ts'
import { getInstance, insertInstance, updatePublicAddress, updateTerminated } from '../instances/instances.ts'
import type { Store } from '../store.ts'
import { engines } from '../testing/engines.ts'
import { storedInstance } from '../testing/instances.ts'
import { storesOn } from '../testing/stores.ts'
import {
  deletePublicIp,
  findPublicIpOfInstance,
  freePublicAddress,
  getPublicIp,
  insertPublicIp,
  listPublicIps,
  takePublicAddress,
  updatePublicIp,
} from './public-ips.ts'

const publicIp = (id: string, address: string, values: { pool?: string; instance_id?: string } = {}) => ({
  id,
  name: id,
  labels: {},
  created_at: 1_800_000_000_000,
  pool: 'default',
  address,
  instance_id: null,
  auto_assigned: 0,
  ...values,
})

/** 203.0.113.1 to 203.0.113.3. The largest number an address can have does not fit in 31 bits. */
const range = { first: 3_405_803_777, last: 3_405_803_779 }
const [one, two, three] = [range.first, range.first + 1, range.last]

describe.each(engines)('public addresses on $name', (engine) => {
  const openStore = storesOn(engine)

  const take = (store: Store, id: string, from = range) => store.write((tx) => takePublicAddress(tx, id, from))
  const free = (store: Store, id: string, at: number) => store.write((tx) => freePublicAddress(tx, id, at))

  async function withInstances(): Promise<Store> {
    const store = await openStore()
    await store.write(async (tx) => {
      for (const id of ['inst-a', 'inst-b']) await insertInstance(tx, storedInstance(id))
    })
    return store
  }

  test('fresh ones go first, then the one free longest, never one twice, and null when all are taken', async () => {
    const store = await openStore()
    expect([await take(store, 'pip-a'), await take(store, 'pip-b')]).toEqual([one, two])
    await free(store, 'pip-a', 10)
    expect(await take(store, 'pip-c')).toBe(three)
    await free(store, 'pip-b', 11)
    await free(store, 'pip-none', 12)
    expect([await take(store, 'pip-d'), await take(store, 'pip-e'), await take(store, 'pip-f')]).toEqual([
      one,
      two,
      null,
    ])
    await free(store, 'pip-c', 13)
    expect(await Promise.all([take(store, 'pip-f'), take(store, 'pip-g')])).toEqual([three, null])
    await expect(take(store, 'pip-f', { first: 1, last: 9 })).rejects.toThrow() // one resource, one address
  })

  test('a range that changed gives what it has and nothing else, whatever was handed out before', async () => {
    const store = await openStore()
    expect(await take(store, 'pip-a', { first: two, last: three })).toBe(two)
    await free(store, 'pip-a', 10)
    expect(await take(store, 'pip-b', { first: one, last: two })).toBe(two)
    expect(await take(store, 'pip-c', { first: one, last: two })).toBe(one)
    expect(await take(store, 'pip-d', { first: one, last: two })).toBe(null)
    expect(await take(store, 'pip-d', { first: three, last: three })).toBe(three)
  })

  test('an address that was taken in a write that fails is free', async () => {
    const store = await openStore()
    const failing = store.write(async (tx) => {
      await takePublicAddress(tx, 'pip-a', range)
      throw new Error('undone')
    })
    await expect(failing).rejects.toThrow('undone')
    expect(await take(store, 'pip-b')).toBe(one)
  })

  test('what is stored is read as it was, lists are by id and narrowed by instance and pool', async () => {
    const store = await withInstances()
    await store.write(async (tx) => {
      await insertPublicIp(tx, publicIp('pip-c', '203.0.113.3', { pool: 'lab' }))
      await insertPublicIp(tx, publicIp('pip-b', '203.0.113.2'))
      await insertPublicIp(tx, publicIp('pip-a', '203.0.113.1', { instance_id: 'inst-a' }))
    })
    expect(await getPublicIp(store.read, 'pip-a')).toEqual({
      ...publicIp('pip-a', '203.0.113.1', { instance_id: 'inst-a' }),
      uid: expect.any(String),
      generation: 1,
    })
    await expect(getPublicIp(store.read, 'pip-none')).rejects.toMatchObject({ code: 'not_found' })
    const ids = async (filter: { instance_id?: string; pool?: string; name?: string }) =>
      (await listPublicIps(store.read, { labels: [], ...filter }, { limit: 10 })).items.map(({ id }) => id)
    expect(await ids({})).toEqual(['pip-a', 'pip-b', 'pip-c'])
    expect(await ids({ pool: 'default' })).toEqual(['pip-a', 'pip-b'])
    expect(await ids({ instance_id: 'inst-a' })).toEqual(['pip-a'])
    expect(await ids({ instance_id: 'inst-a', pool: 'lab' })).toEqual([])
    expect(await ids({ name: 'pip-b' })).toEqual(['pip-b'])
    expect((await findPublicIpOfInstance(store.read, 'inst-a'))?.id).toBe('pip-a')
    expect(await findPublicIpOfInstance(store.read, 'inst-b')).toBe(null)
  })

  test('the database itself refuses an address, and an instance, a second holder', async () => {
    const store = await withInstances()
    const add = (id: string, address: string, instance: string) =>
      store.write((tx) => insertPublicIp(tx, publicIp(id, address, { instance_id: instance })))
    await add('pip-a', '203.0.113.1', 'inst-a')
    await expect(add('pip-b', '203.0.113.1', 'inst-b')).rejects.toThrow()
    await expect(add('pip-b', '203.0.113.2', 'inst-a')).rejects.toThrow()
    await expect(add('pip-b', '203.0.113.2', 'inst-none')).rejects.toThrow()
    const show = (id: string) =>
      store.write(async (tx) => updatePublicAddress(tx, await getInstance(tx.db, id), '203.0.113.1'))
    await show('inst-a')
    await expect(show('inst-b')).rejects.toThrow()
  })

  test('a change raises the generation, the same again does not, an old version is refused', async () => {
    const store = await withInstances()
    await store.write((tx) => insertPublicIp(tx, publicIp('pip-a', '203.0.113.1')))
    const read = await getPublicIp(store.read, 'pip-a')
    const change = { name: 'n', labels: { a: 'b' }, instance_id: 'inst-b', auto_assigned: 1 }
    await store.write((tx) => updatePublicIp(tx, read, change))
    const changed = await getPublicIp(store.read, 'pip-a')
    expect(changed).toEqual({ ...read, ...change, generation: 2 })
    await store.write((tx) => updatePublicIp(tx, changed, change))
    const late = store.write((tx) => updatePublicIp(tx, read, { name: 'late' }))
    await expect(late).rejects.toMatchObject({ code: 'unavailable' })
    expect(await getPublicIp(store.read, 'pip-a')).toEqual(changed)
    await store.write((tx) => deletePublicIp(tx, 'pip-a'))
    const types = (await listEvents(store.read, 0, 100)).map(({ type }) => type).filter((type) => /^public/.test(type))
    expect(types).toEqual(['public_ip.created', 'public_ip.updated', 'public_ip.deleted'])
  })

  test('an instance that gets or loses an address has a new generation, and a tombstone shows none', async () => {
    const store = await withInstances()
    const attach = (id: string, address: string) =>
      store.write(async (tx) => updatePublicAddress(tx, await getInstance(tx.db, id), address))
    expect(await attach('inst-a', '203.0.113.1')).toMatchObject({ public_ip: '203.0.113.1', generation: 2 })
    expect(await attach('inst-a', '')).toMatchObject({ public_ip: '', generation: 3 })
    const last = await attach('inst-a', '203.0.113.2')
    expect(await getInstance(store.read, 'inst-a')).toEqual(last)
    await store.write((tx) => updateTerminated(tx, last, 5))
    expect(await getInstance(store.read, 'inst-a')).toMatchObject({ public_ip: '', terminated_at: 5 })
    expect(await attach('inst-b', '203.0.113.2')).toMatchObject({ public_ip: '203.0.113.2' })
  })
})
