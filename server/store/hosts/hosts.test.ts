import { describe, expect, test } from 'vitest'
import { listEvents } from '../events.ts'
import type { Store } from '../store.ts'
import { engines } from '../testing/engines.ts'
import { storesOn } from '../testing/stores.ts'
import { updateResource } from '../versions.ts'
import {
  findHost,
  getHost,
  type HostReport,
  insertHostIfAbsent,
  listHostPage,
  listHosts,
  release,
  reserve,
  updateHostReport,
} from './hosts.ts'

const add = (store: Store, id: string) =>
  store.write((tx) => insertHostIfAbsent(tx, { id, name: id, created_at: 1_800_000_000_000 }))

const said: HostReport = {
  agent_session: 1_800_000_000_000,
  sequence: 1,
  agent_version: '1',
  hypervisor: 'simulated',
  accelerator: 'none',
  accelerator_reason: '',
  capacity_vcpus: 4,
  capacity_memory_mb: 4096,
  capacity_disk_gb: 100,
  images: [],
  last_seen_at: 1_800_000_000_001,
  last_repair: 0,
}

const reported = async (store: Store, changes: Partial<HostReport> = {}) =>
  store.write(async (tx) => updateHostReport(tx, await getHost(tx.db, 'host-a'), { ...said, ...changes }))

const eventsOf = async (store: Store) => (await listEvents(store.read, 0, 100)).map((event) => event.type)

describe.each(engines)('hosts on $name', (engine) => {
  const openStore = storesOn(engine)

  test('one is made known once; doing it again changes and tells nothing', async () => {
    const store = await openStore()
    await add(store, 'host-a')
    await reported(store)
    const before = await getHost(store.read, 'host-a')
    await add(store, 'host-a')
    expect(await getHost(store.read, 'host-a')).toEqual(before)
    expect(await eventsOf(store)).toEqual(['host.created', 'host.updated'])
    expect(await findHost(store.read, 'host-b')).toBe(null)
    await expect(getHost(store.read, 'host-b')).rejects.toMatchObject({ code: 'not_found' })
  })

  test('a report is stored; it is an event when it says something new, else it only wakes', async () => {
    const store = await openStore()
    await add(store, 'host-a')
    const woken: string[] = []
    store.onChange((ids) => woken.push(...ids))
    await reported(store)
    await reported(store, { sequence: 2, last_seen_at: said.last_seen_at + 10_000 })
    await reported(store, { sequence: 3, capacity_vcpus: 8 })
    expect(await eventsOf(store)).toEqual(['host.created', 'host.updated', 'host.updated'])
    expect(woken).toEqual(['host-a', 'host-a', 'host-a'])
    expect(await getHost(store.read, 'host-a')).toMatchObject({ ...said, sequence: 3, capacity_vcpus: 8 })
  })

  test('room is reserved up to the capacity and not a bit more, also by many at once, and given back', async () => {
    const store = await openStore()
    await add(store, 'host-a')
    await reported(store)
    const size = { vcpus: 1, memory_mb: 1024, disk_gb: 10 }
    const results = await Promise.all(
      Array.from({ length: 10 }, () => store.write((tx) => reserve(tx, 'host-a', size))),
    )
    expect(results.filter(Boolean)).toHaveLength(4)
    const full = { allocated_vcpus: 4, allocated_memory_mb: 4096, allocated_disk_gb: 40 }
    expect(await getHost(store.read, 'host-a')).toMatchObject(full)
    await store.write((tx) => release(tx, 'host-a', size))
    for (const over of [{ vcpus: 2 }, { memory_mb: 1025 }, { disk_gb: 71 }]) {
      expect(await store.write((tx) => reserve(tx, 'host-a', { ...size, ...over }))).toBe(false)
    }
    expect(await store.write((tx) => reserve(tx, 'host-a', { ...size, disk_gb: 70 }))).toBe(true)
    expect(await store.write((tx) => reserve(tx, 'host-none', size))).toBe(false)
  })

  test('more cannot be given back than was reserved', async () => {
    const store = await openStore()
    await add(store, 'host-a')
    await expect(store.write((tx) => release(tx, 'host-a', { vcpus: 1, memory_mb: 0, disk_gb: 0 }))).rejects.toThrow()
    expect(await getHost(store.read, 'host-a')).toMatchObject({ allocated_vcpus: 0 })
  })

  test('what it must hear of raises its revision, once a commit, and makes no event', async () => {
    const store = await openStore()
    await add(store, 'host-a')
    const { desired_revision: before } = await getHost(store.read, 'host-a')
    const heard: boolean[] = []
    store.onChange((ids) => heard.push(ids.has('host-a')))
    const tell = () => store.write(async (tx) => tx.tellHosts(['host-a', 'host-a']))
    const refused = store.write(async (tx) => {
      tx.tellHosts(['host-a'])
      throw new Error('no')
    })
    await Promise.all([...Array.from({ length: 5 }, tell), expect(refused).rejects.toThrow('no')])
    expect((await getHost(store.read, 'host-a')).desired_revision).toBe(before + 1)
    await tell()
    expect((await getHost(store.read, 'host-a')).desired_revision).toBe(before + 2)
    expect(heard).toEqual([true, true])
    expect(await eventsOf(store)).toEqual(['host.created'])
  })

  test('a change of its spec raises the generation; the same again does not; an old version is refused', async () => {
    const store = await openStore()
    await add(store, 'host-a')
    const old = await getHost(store.read, 'host-a')
    const change = { schedulable: 0, name: 'n', labels: { a: 'b' } }
    const changed = await store.write((tx) => updateResource(tx, 'host', old, change))
    expect(changed).toEqual({ ...old, ...change, generation: 2 })
    expect(await getHost(store.read, 'host-a')).toEqual(changed)
    expect(await store.write((tx) => updateResource(tx, 'host', changed, change))).toEqual(changed)
    await expect(store.write((tx) => updateResource(tx, 'host', old, { name: 'late' }))).rejects.toMatchObject({
      code: 'unavailable',
    })
    expect(await getHost(store.read, 'host-a')).toEqual(changed)
    expect(await eventsOf(store)).toEqual(['host.created', 'host.updated'])
  })

  test('lists go by id, whole or in pages', async () => {
    const store = await openStore()
    for (const id of ['host-b', 'host-c', 'host-a']) await add(store, id)
    const ids = async (page: { after?: string; limit: number }) =>
      (await listHostPage(store.read, { labels: [] }, page)).items.map((host) => host.id)
    expect((await listHosts(store.read)).map((host) => host.id)).toEqual(['host-a', 'host-b', 'host-c'])
    expect(await ids({ after: 'host-a', limit: 1 })).toEqual(['host-b'])
    expect(await ids({ limit: 2 })).toEqual(['host-a', 'host-b'])
  })
})
