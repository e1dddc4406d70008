import { describe, expect, test } from 'vitest'
import { mergeChange } from './change.ts'
import { deleteOldEvents, eventRange, hasEventBefore, insertEvents, listEvents } from './events.ts'
import {
  deleteIdempotencyKey,
  deleteOldIdempotencyKeys,
  findIdempotencyKey,
  insertIdempotencyKey,
  listOldIdempotencyKeys,
} from './idempotency-keys.ts'
import {
  deleteOperations,
  findLastOperation,
  getOperation,
  insertOperation,
  listOldOperations,
  listOpenOperations,
  listOperations,
  listOverdueOperations,
  updateOperation,
} from './operations.ts'
import type { StoredOperation } from './schema.ts'
import type { Store } from './store.ts'
import { engines } from './testing/engines.ts'
import { storedOperation } from './testing/instances.ts'
import { storesOn } from './testing/stores.ts'

const insert = (store: Store, ...operations: StoredOperation[]) =>
  store.write(async (tx) => {
    for (const operation of operations) await insertOperation(tx, operation)
  })

const ids = (operations: readonly StoredOperation[]) => operations.map((operation) => operation.id)

describe.each(engines)('operations on $name', (engine) => {
  const openStore = storesOn(engine)

  test('what is stored is read as it was, and the end is final', async () => {
    const store = await openStore()
    const open = storedOperation('op-1', { created_at: 1_800_000_000_000 })
    await insert(store, open)
    expect(await getOperation(store.read, 'op-1')).toEqual(open)
    const error = { code: 'no_capacity', message: 'm', retryable: true, hint: 'h' }
    const ended: StoredOperation = { ...open, status: 'failed', error, finished_at: 1_800_000_000_001 }
    await store.write((tx) => updateOperation(tx, ended))
    expect(await getOperation(store.read, 'op-1')).toEqual(ended)
    await expect(store.write((tx) => updateOperation(tx, { ...open, status: 'running' }))).rejects.toThrow(
      'ended already',
    )
    expect(await getOperation(store.read, 'op-1')).toEqual(ended)
    await expect(getOperation(store.read, 'op-2')).rejects.toMatchObject({ code: 'not_found' })
  })

  test('lists go from new to old, by each filter, in pages', async () => {
    const store = await openStore()
    await insert(
      store,
      storedOperation('op-1'),
      storedOperation('op-2', { resource_id: 'inst-b', type: 'instance.stop' }),
      storedOperation('op-3', { status: 'succeeded', finished_at: 5 }),
      storedOperation('op-4', { type: 'instance.delete' }),
    )
    const list = async (...args: Parameters<typeof listOperations> extends [unknown, ...infer Rest] ? Rest : never) =>
      ids((await listOperations(store.read, ...args)).items)
    expect(await list({}, { limit: 10 })).toEqual(['op-4', 'op-3', 'op-2', 'op-1'])
    expect(await list({}, { limit: 2 })).toEqual(['op-4', 'op-3'])
    expect(await list({}, { limit: 2, after: 'op-3' })).toEqual(['op-2', 'op-1'])
    expect(await list({ resource_id: 'inst-a' }, { limit: 10 })).toEqual(['op-4', 'op-3', 'op-1'])
    expect(await list({ type: 'instance.stop' }, { limit: 10 })).toEqual(['op-2'])
    expect(await list({ resource_type: 'instance', status: 'succeeded' }, { limit: 10 })).toEqual(['op-3'])
    expect(await list({ status: 'pending', resource_id: 'inst-a' }, { limit: 10 })).toEqual(['op-4', 'op-1'])
    expect(ids(await listOpenOperations(store.read, 'inst-a'))).toEqual(['op-1', 'op-4'])
    expect((await findLastOperation(store.read, 'inst-a', 'instance.create'))?.id).toBe('op-3')
    expect(await findLastOperation(store.read, 'inst-a', 'instance.reboot')).toBe(null)
  })

  test('only open operations are overdue, only ended ones grow old', async () => {
    const store = await openStore()
    await insert(
      store,
      storedOperation('op-1', { deadline_at: 30 }),
      storedOperation('op-2', { deadline_at: 20 }),
      storedOperation('op-3', { deadline_at: 10, status: 'succeeded', finished_at: 100 }),
      storedOperation('op-4', { deadline_at: 10, status: 'failed', finished_at: 50 }),
    )
    expect(ids(await listOverdueOperations(store.read, 31, 10))).toEqual(['op-2', 'op-1'])
    expect(ids(await listOverdueOperations(store.read, 30, 10))).toEqual(['op-2'])
    expect(await listOldOperations(store.read, 101, 10)).toEqual(['op-4', 'op-3'])
    expect(await listOldOperations(store.read, 101, 1)).toEqual(['op-4'])
    expect(await listOldOperations(store.read, 50, 10)).toEqual([])
    await store.write((tx) => deleteOperations(tx, ['op-3', 'op-4']))
    expect(ids((await listOperations(store.read, {}, { limit: 10 })).items)).toEqual(['op-2', 'op-1'])
    expect(
      (await listEvents(store.read, 0, 100)).slice(-2).map(({ type, resource_id }) => [type, resource_id]),
    ).toEqual([
      ['operation.deleted', 'op-3'],
      ['operation.deleted', 'op-4'],
    ])
  })
})

describe.each(engines)('events on $name', (engine) => {
  const openStore = storesOn(engine)
  const note = (store: Store, ...names: string[]) =>
    store.write(async (tx) => {
      for (const id of names) tx.changed({ resource: 'vpc', id, action: 'created' })
    })

  test('they have rising numbers in the order of the commits, also from writers at the same moment', async () => {
    const store = await openStore()
    expect(await eventRange(store.read)).toEqual({ first: 0, last: 0 })
    const order: string[] = []
    await Promise.all(
      Array.from({ length: 100 }, async (_, i) => {
        await note(store, `vpc-${i}`)
        order.push(`vpc-${i}`)
      }),
    )
    const events = await listEvents(store.read, 0, 1000)
    expect(events.map((event) => event.resource_id)).toEqual(order)
    for (const [i, event] of events.entries()) expect(event.sequence).toBeGreaterThan(events[i - 1]?.sequence ?? 0)
    const middle = events[49]?.sequence ?? 0
    expect(await listEvents(store.read, middle, 3)).toEqual(events.slice(50, 53))
    expect(await eventRange(store.read)).toEqual({ first: events[0]?.sequence, last: events.at(-1)?.sequence })
  })

  test('a transaction has one event for a resource, with what it came to, and none when it fails', async () => {
    const store = await openStore({ now: () => 1_800_000_000_000 })
    await store.write(async (tx) => {
      tx.changed({ resource: 'vpc', id: 'vpc-a', action: 'created', detail: { generation: 1 } })
      tx.changed({ resource: 'vpc', id: 'vpc-b', action: 'updated' })
      tx.changed({ resource: 'vpc', id: 'vpc-a', action: 'updated', detail: { generation: 2 } })
      tx.changed({ resource: 'vpc', id: 'vpc-b', action: 'deleted' })
      tx.wake('vpc-c')
    })
    const failing = store.write(async (tx) => {
      tx.changed({ resource: 'vpc', id: 'vpc-lost', action: 'created' })
      throw new Error('refused')
    })
    await expect(failing).rejects.toThrow('refused')
    const events = await listEvents(store.read, 0, 10)
    expect(events.map(({ sequence: _, ...event }) => event)).toEqual([
      { type: 'vpc.created', resource_id: 'vpc-a', at: 1_800_000_000_000, detail: { generation: 2 } },
      { type: 'vpc.deleted', resource_id: 'vpc-b', at: 1_800_000_000_000, detail: {} },
    ])
  })

  test('ten thousand changes fit into one transaction', async () => {
    const store = await openStore()
    await note(store, ...Array.from({ length: 10_000 }, (_, i) => `vpc-${i}`))
    const { last } = await eventRange(store.read)
    expect((await listEvents(store.read, last - 1, 10)).map((event) => event.resource_id)).toEqual(['vpc-9999'])
    expect(await listEvents(store.read, 0, 20_000)).toHaveLength(10_000)
  })

  test('old ones go, oldest first and so many at once, but never the newest', async () => {
    const store = await openStore()
    const add = (id: string, at: number) =>
      store.write((tx) => insertEvents(tx.db, [{ resource: 'vpc', id, action: 'created' }], at))
    const sweep = (before: number, limit: number) => store.write((tx) => deleteOldEvents(tx.db, before, limit))
    const left = async () => (await listEvents(store.read, 0, 100)).map((event) => event.resource_id)
    expect(await sweep(1000, 10)).toBe(0)
    for (const [id, at] of Object.entries({ a: 10, b: 20, c: 30, d: 40, e: 50 })) await add(id, at)
    expect([await hasEventBefore(store.read, 10), await hasEventBefore(store.read, 11)]).toEqual([false, true])
    expect(await sweep(10, 10)).toBe(0)
    expect(await sweep(25, 10)).toBe(2)
    expect(await left()).toEqual(['c', 'd', 'e'])
    expect(await sweep(1000, 1)).toBe(1)
    expect(await left()).toEqual(['d', 'e'])
    expect(await sweep(1000, 10)).toBe(1)
    expect(await left()).toEqual(['e'])
    expect([await sweep(1000, 10), await hasEventBefore(store.read, 1000)]).toEqual([0, false])
    await add('f', 60)
    expect((await listEvents(store.read, 0, 10)).map((event) => event.resource_id)).toEqual(['e', 'f'])
  })

  test('merging keeps that a resource is new', () => {
    const changes = new Map()
    mergeChange(changes, { resource: 'vpc', id: 'vpc-a', action: 'created' })
    mergeChange(changes, { resource: 'vpc', id: 'vpc-a', action: 'updated', detail: { a: 1 } })
    expect([...changes.values()]).toEqual([{ resource: 'vpc', id: 'vpc-a', action: 'created', detail: { a: 1 } }])
  })
})

describe.each(engines)('idempotency keys on $name', (engine) => {
  const openStore = storesOn(engine)
  const row = (key: string, created_at: number) => ({
    key,
    fingerprint: 'f',
    status: 201,
    location: '/v1/vpcs/vpc-a',
    body: '{"a":"\\u0000é"}',
    created_at,
  })

  test('one is bound once, found, listed when old, and free again when it was removed', async () => {
    const store = await openStore()
    const bind = (key: string, at: number) => store.write((tx) => insertIdempotencyKey(tx, row(key, at)))
    for (const [key, at] of Object.entries({ a: 30, b: 10, c: 20 })) await bind(key, at)
    expect(await findIdempotencyKey(store.read, 'a')).toEqual(row('a', 30))
    expect(await findIdempotencyKey(store.read, 'A')).toBe(null)
    await expect(bind('a', 40)).rejects.toThrow()
    expect(await listOldIdempotencyKeys(store.read, 30, 10)).toEqual(['b', 'c'])
    expect(await listOldIdempotencyKeys(store.read, 31, 2)).toEqual(['b', 'c'])
    const old = await listOldIdempotencyKeys(store.read, 25, 10)
    await store.write((tx) => deleteIdempotencyKey(tx, 'b'))
    await bind('b', 100) // a request with it came since it was listed
    await store.write((tx) => deleteOldIdempotencyKeys(tx, old, 25))
    expect(await findIdempotencyKey(store.read, 'b')).toEqual(row('b', 100))
    expect(await findIdempotencyKey(store.read, 'c')).toBe(null)
    await store.write((tx) => deleteIdempotencyKey(tx, 'a'))
    await bind('a', 40)
    expect((await findIdempotencyKey(store.read, 'a'))?.created_at).toBe(40)
    expect(await listEvents(store.read, 0, 10)).toEqual([])
  })
})
