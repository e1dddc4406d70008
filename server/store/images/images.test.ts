import { sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import { listEvents } from '../events.ts'
import { findHost, findHostImage, insertHostIfAbsent, reportsOfImage, updateHostReport } from '../hosts/hosts.ts'
import { insertInstance, updateTerminated } from '../instances/instances.ts'
import { imageChecksums } from '../migrations/0009-image-checksums.ts'
import type { Store } from '../store.ts'
import { engines } from '../testing/engines.ts'
import { storedInstance } from '../testing/instances.ts'
import { storesOn } from '../testing/stores.ts'
import { updateResource } from '../versions.ts'
import { deleteImage, findImage, getImage, insertImage, listImages, listInstancesWithImage } from './images.ts'

const image = (id: string) => ({
  ...{ id, name: id, labels: { a: 'b' }, created_at: 1_800_000_000_000, title: 'Änd' },
  ...{ source_url: 'https://a.example', checksum: `sha256:${'ab'.repeat(32)}`, min_disk_gb: 4, default_user: 'root' },
  network: 'dhcp' as const,
  datasource: 'disk' as const,
  ready_timeout_seconds: 900,
})

const held = (id: string, mark?: string) => ({
  ...{ id, state: 'available' as const, received_bytes: 1, total_bytes: 1, reason: '' },
  image: {
    ...({ id, title: id, min_disk_gb: 1, architecture: 'x86_64', default_user: 'root', network: 'static' } as const),
    ...{ origin: 'downloaded' as const, source_url: '', sha256: 'cd'.repeat(32), size_bytes: 1 },
    ...{ virtual_size_bytes: 1, created_at: '2026-11-01T00:00:00Z' },
    ...(mark === undefined ? {} : { registered_checksum: mark }),
  },
})

describe.each(engines)('images on $name', (engine) => {
  const openStore = storesOn(engine)

  test('keep their checksums when those get an algorithm in front', async () => {
    const store = await openStore()
    const marked = (mark: object) => JSON.stringify([{ id: 'a', state: 'available', image: mark, ...mark }])
    await store.write(async (tx) => {
      await insertImage(tx, image('a'))
      await sql`alter table images rename column checksum to sha256`.execute(tx.db)
      await sql`update images set sha256 = ${'ab'.repeat(32)}`.execute(tx.db)
      await insertHostIfAbsent(tx, { id: 'host-a', name: 'host-a', created_at: 1 })
      await sql`update hosts set images = ${marked({ registered_sha256: 'ab' })}`.execute(tx.db)
      await imageChecksums().up(tx.db)
    })
    expect((await getImage(store.read, 'a')).checksum).toBe(`sha256:${'ab'.repeat(32)}`)
    const [host] = await store.read.selectFrom('hosts').select('images').execute()
    expect(host?.images).toBe(marked({ registered_checksum: 'sha256:ab' }))
  })

  async function report(store: Store, id: string, images: ReturnType<typeof held>[]): Promise<void> {
    await store.write(async (tx) => {
      await insertHostIfAbsent(tx, { id, name: id, created_at: 1 })
      const host = await findHost(tx.db, id)
      const { labels: _, ...columns } = host ?? {}
      if (host !== null) await updateHostReport(tx, host, { ...(columns as typeof host), images })
    })
  }

  test('are read as they were written, in the order of their ids', async () => {
    const store = await openStore()
    await store.write(async (tx) => {
      for (const id of ['b', 'a.1']) await insertImage(tx, image(id))
    })
    expect(await getImage(store.read, 'a.1')).toEqual({ ...image('a.1'), uid: expect.any(String), generation: 1 })
    expect((await listImages(store.read)).map(({ id }) => id)).toEqual(['a.1', 'b'])
    expect(await findImage(store.read, 'c')).toBe(null)
    await expect(getImage(store.read, 'c')).rejects.toMatchObject({ code: 'not_found' })
  })

  test('have one id each', async () => {
    const store = await openStore()
    await store.write((tx) => insertImage(tx, image('a')))
    await expect(store.write((tx) => insertImage(tx, { ...image('a'), title: 'other' }))).rejects.toThrow()
    expect((await getImage(store.read, 'a')).title).toBe('Änd')
  })

  test('have an event for what is made, changed and removed', async () => {
    const store = await openStore()
    await store.write((tx) => insertImage(tx, image('a')))
    await store.write(async (tx) => {
      await updateResource(tx, 'image', await getImage(tx.db, 'a'), { name: 'a', labels: {} })
    })
    await store.write((tx) => deleteImage(tx, 'a'))
    const events = await listEvents(store.read, 0, 10)
    expect(events.map(({ type, detail }) => [type, detail])).toEqual([
      ['image.created', {}],
      ['image.updated', { generation: 2 }],
      ['image.deleted', {}],
    ])
  })

  test('and another resource of the same id, changed in one transaction, have an event each', async () => {
    const store = await openStore()
    await store.write(async (tx) => {
      await insertImage(tx, image('host-1'))
      tx.changed({ resource: 'host', id: 'host-1', action: 'updated', detail: { generation: 7 } })
    })
    const events = await listEvents(store.read, 0, 10)
    expect(events.map(({ type, detail }) => [type, detail])).toEqual([
      ['image.created', {}],
      ['host.updated', { generation: 7 }],
    ])
  })

  test('are used by the live instances that are made from them', async () => {
    const store = await openStore()
    const dead = storedInstance('inst-3', { image: 'base' })
    await store.write(async (tx) => {
      for (const id of ['inst-2', 'inst-1']) await insertInstance(tx, storedInstance(id, { image: 'base' }))
      await insertInstance(tx, storedInstance('inst-4', { image: 'other' }))
      await insertInstance(tx, dead)
      await updateTerminated(tx, dead, 1)
    })
    expect(await listInstancesWithImage(store.read, 'base', 10)).toEqual(['inst-1', 'inst-2'])
    expect(await listInstancesWithImage(store.read, 'base', 1)).toEqual(['inst-1'])
    expect(await listInstancesWithImage(store.read, 'bas', 10)).toEqual([])
  })

  test('are reported by the hosts that name them, and a download for one of the API is no image of the host', async () => {
    const store = await openStore()
    await report(store, 'host-a', [held('debian-12'), held('debian')])
    await report(store, 'host-b', [held('debian-12', 'ab'.repeat(32))])
    await report(store, 'host-c', [held('base', 'ab'.repeat(32))])
    const hosts: string[] = []
    for await (const { hostId } of reportsOfImage(store.read, 'debian-12')) hosts.push(hostId)
    expect(hosts).toEqual(['host-a', 'host-b'])
    expect((await findHostImage(store.read, 'debian'))?.id).toBe('debian')
    expect(await findHostImage(store.read, 'base')).toBe(null)
    expect(await findHostImage(store.read, 'ebian')).toBe(null)
  })
})
