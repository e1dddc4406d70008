import { instanceStates } from '@berth/contract/instances/states.ts'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { listEvents } from '../events.ts'
import { insertHostIfAbsent } from '../hosts/hosts.ts'
import { insertSecurityGroup } from '../networks/security-groups.ts'
import type { Store } from '../store.ts'
import { engines } from '../testing/engines.ts'
import { report, storedInstance } from '../testing/instances.ts'
import { storesOn } from '../testing/stores.ts'
import type { Transaction } from '../transaction.ts'
import { appendConsole, consoleEnd, readConsole } from './console-log.ts'
import {
  deleteInstance,
  findInstance,
  getInstance,
  type InstanceIntent,
  insertInstance,
  listExpiredInstances,
  listInstancesInSubnet,
  listInstancesOfHost,
  listUnplacedInstances,
  stateOf,
  updateDescription,
  updateIntent,
  updateLatestOperation,
  updatePlacement,
  updateRefusal,
  updateReport,
  updateTerminated,
} from './instances.ts'

const insert = (store: Store, ...instances: ReturnType<typeof storedInstance>[]) =>
  store.write(async (tx) => {
    for (const instance of instances) await insertInstance(tx, instance)
  })

const addHost = (store: Store, id: string) =>
  store.write((tx) => insertHostIfAbsent(tx, { id, name: id, created_at: 0 }))

const addGroup = (store: Store, id: string) =>
  store.write((tx) => insertSecurityGroup(tx, { id, name: id, labels: {}, created_at: 0, description: '', rules: [] }))

describe.each(engines)('instances on $name', (engine) => {
  const openStore = storesOn(engine)

  test('what is stored is read as it was', async () => {
    const store = await openStore()
    await addHost(store, 'host-a')
    await addGroup(store, 'sg-a')
    const instance = storedInstance('inst-a', {
      name: 'n',
      labels: { a: 'b', 'x/y': '' },
      security_groups: ['sg-a'],
      user_data: 'IyEvYmluL3No',
      host_id: 'host-a',
      scheduled_at: 1_800_000_000_123,
      created_at: 1_800_000_000_000,
      report: report('inst-a', 'running'),
      on_capacity: 'fail',
      on_panic: 'stop',
      memory_mb: 4_194_304,
    })
    await insert(store, instance)
    expect(await findInstance(store.read, 'inst-a')).toEqual(instance)
    expect(await findInstance(store.read, 'inst-b')).toBe(null)
    await expect(getInstance(store.read, 'inst-b')).rejects.toMatchObject({ code: 'not_found' })
  })

  test('a second instance with the same id or MAC is refused', async () => {
    const store = await openStore()
    await insert(store, storedInstance('inst-a'))
    await expect(insert(store, storedInstance('inst-a'))).rejects.toThrow()
    await expect(insert(store, storedInstance('inst-b', { mac: '06:inst-a' }))).rejects.toThrow()
    await expect(insert(store, storedInstance('inst-c', { host_id: 'host-none' }))).rejects.toThrow()
    expect(await listUnplacedInstances(store.read, '', 10)).toHaveLength(1)
  })

  test('a change of a version that is no longer the newest is refused and changes nothing', async () => {
    const store = await openStore()
    const old = storedInstance('inst-a')
    await insert(store, old)
    const current = await store.write((tx) => updateIntent(tx, old, { desired: 'stopped' }))
    for (const late of [
      (tx: Transaction) => updateIntent(tx, old, { desired: 'deleted' }),
      (tx: Transaction) => updateDescription(tx, old, { name: 'late', labels: { a: 'b' }, security_groups: [] }),
      (tx: Transaction) => updateReport(tx, old, report('inst-a', 'off')),
      (tx: Transaction) => updateTerminated(tx, old, 9),
      (tx: Transaction) => updateRefusal(tx, old, 'late'),
      (tx: Transaction) => updateLatestOperation(tx, old, 'op-late'),
      (tx: Transaction) => updatePlacement(tx, old, { host_id: 'host-a', scheduled_at: 1 }),
    ]) {
      await expect(store.write<unknown>(late)).rejects.toMatchObject({ code: 'unavailable' })
    }
    expect(await getInstance(store.read, 'inst-a')).toEqual(current)
  })

  test('each kind of change raises what it should raise', async () => {
    const store = await openStore()
    await addGroup(store, 'sg-a')
    const made = storedInstance('inst-a')
    await insert(store, made)
    const described = { name: made.name, labels: { a: 'b' }, security_groups: made.security_groups }
    const labelled = await store.write((tx) => updateDescription(tx, made, described))
    expect(labelled).toEqual({ ...made, labels: { a: 'b' }, metadata_revision: 1 })
    const both = { ...described, name: 'n', security_groups: ['sg-a'] }
    const regrouped = await store.write((tx) => updateDescription(tx, labelled, both))
    expect(regrouped).toEqual({ ...labelled, name: 'n', security_groups: ['sg-a'], generation: 2 })
    expect(await store.write((tx) => updateDescription(tx, regrouped, both))).toBe(regrouped)
    const stopped = await store.write((tx) => updateIntent(tx, regrouped, { desired: 'stopped' }))
    expect(stopped).toEqual({ ...regrouped, desired: 'stopped', generation: 3 })
    expect(await getInstance(store.read, 'inst-a')).toEqual(stopped)
    const events = await listEvents(store.read, 0, 100)
    expect(events.filter((event) => event.resource_id === 'inst-a').map((event) => event.type)).toEqual([
      'instance.created',
      'instance.updated',
      'instance.updated',
      'instance.updated',
    ])
    expect(events.at(-1)?.detail).toEqual({ state: 'stopped', generation: 3, operation_id: 'op-a' })
  })

  test('the column of the state is what the pure function makes of the row, after any changes', async () => {
    const store = await openStore()
    for (const id of ['host-a', 'host-b']) await addHost(store, id)
    const change = fc.oneof(
      fc.record({ desired: fc.constantFrom('running', 'stopped', 'deleted') }).map((intent) => ({ intent })),
      fc.constantFrom('starting', 'running', 'shutting_down', 'off', 'absent').map((power) => ({ power })),
      fc.constantFrom('host-a', 'host-b').map((host) => ({ host })),
      fc.constantFrom('terminate', 'rename', 'refuse', 'operation').map((kind) => ({ kind })),
    )
    let count = 0
    await fc.assert(
      fc.asyncProperty(fc.array(change, { maxLength: 12 }), async (changes) => {
        const id = `inst-${String(count++).padStart(6, '0')}`
        await insert(store, storedInstance(id))
        for (const each of changes) {
          await store.write(async (tx) => {
            const read = await getInstance(tx.db, id)
            if ('intent' in each) await updateIntent(tx, read, each.intent as InstanceIntent)
            else if ('power' in each) await updateReport(tx, read, report(id, each.power as 'off'))
            else if ('host' in each) await updatePlacement(tx, read, { host_id: each.host, scheduled_at: 3 })
            else if (each.kind === 'terminate') await updateTerminated(tx, read, 7)
            else if (each.kind === 'rename')
              await updateDescription(tx, read, { name: 'n', labels: {}, security_groups: [] })
            else if (each.kind === 'refuse') await updateRefusal(tx, read, 'no room')
            else await updateLatestOperation(tx, read, 'op-b')
          })
          const row = await store.read.selectFrom('instances').select('state').where('id', '=', id).executeTakeFirst()
          expect(row?.state).toBe(stateOf(await getInstance(store.read, id)))
        }
      }),
      { numRuns: 40 },
    )
    const rows = await store.read.selectFrom('instances').select(['id', 'state']).execute()
    for (const row of rows) expect(row.state).toBe(stateOf(await getInstance(store.read, row.id)))
    expect(instanceStates).toEqual(expect.arrayContaining([...new Set(rows.map((row) => row.state))]))
  })

  test('unplaced, of a host, in a subnet, expired: each list has whom it should have', async () => {
    const store = await openStore()
    await addHost(store, 'host-a')
    const placed = { host_id: 'host-a', scheduled_at: 1 }
    await insert(
      store,
      storedInstance('inst-1'),
      storedInstance('inst-2', { desired: 'deleted', terminated_at: 100 }),
      storedInstance('inst-3', placed),
      storedInstance('inst-4', { ...placed, desired: 'deleted' }),
      storedInstance('inst-5', { ...placed, desired: 'deleted', terminated_at: 200 }),
      storedInstance('inst-6', { desired: 'stopped', subnet_id: 'subnet-b' }),
    )
    const ids = (instances: readonly { id: string }[]) => instances.map((instance) => instance.id)
    expect(ids(await listUnplacedInstances(store.read, '', 10))).toEqual(['inst-1', 'inst-6'])
    expect(ids(await listUnplacedInstances(store.read, 'inst-1', 10))).toEqual(['inst-6'])
    expect(ids(await listUnplacedInstances(store.read, '', 1))).toEqual(['inst-1'])
    expect(ids(await listInstancesOfHost(store.read, 'host-a'))).toEqual(['inst-3', 'inst-4'])
    expect(await listInstancesInSubnet(store.read, 'subnet-a', 10)).toEqual(['inst-1', 'inst-3', 'inst-4'])
    expect(await listInstancesInSubnet(store.read, 'subnet-a', 2)).toEqual(['inst-1', 'inst-3'])
    expect((await listExpiredInstances(store.read, 201, 10)).sort()).toEqual(['inst-2', 'inst-5'])
    expect(await listExpiredInstances(store.read, 200, 10)).toEqual(['inst-2'])
  })

  test('a tombstone goes with its labels, groups and console', async () => {
    const store = await openStore()
    await addGroup(store, 'sg-a')
    await insert(store, storedInstance('inst-a', { labels: { a: 'b' }, security_groups: ['sg-a'] }))
    await store.write((tx) => appendConsole(tx, 'inst-a', 0, Buffer.from('hello')))
    await store.write((tx) => deleteInstance(tx, 'inst-a'))
    expect(await findInstance(store.read, 'inst-a')).toBe(null)
    for (const table of ['instance_labels', 'instance_security_groups', 'console_chunks'] as const) {
      expect(await store.read.selectFrom(table).select('instance_id').execute()).toEqual([])
    }
  })

  test('the console gives its bytes in order, whatever they are, and the newest 256 KiB of them', async () => {
    const store = await openStore()
    await insert(store, storedInstance('inst-a'), storedInstance('inst-b'))
    expect(await consoleEnd(store.read, 'inst-a')).toBe(0)
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
    await store.write((tx) => appendConsole(tx, 'inst-a', 0, bytes))
    await store.write((tx) => appendConsole(tx, 'inst-a', 256, bytes))
    expect(await consoleEnd(store.read, 'inst-a')).toBe(512)
    expect(await readConsole(store.read, 'inst-a')).toEqual(Buffer.concat([bytes, bytes]))
    await expect(store.write((tx) => appendConsole(tx, 'inst-a', 256, bytes))).rejects.toThrow()
    for (let i = 0; i < 6; i++) {
      await store.write((tx) => appendConsole(tx, 'inst-a', 512 + i * 65_536, Buffer.alloc(65_536, 97 + i)))
    }
    const kept = await readConsole(store.read, 'inst-a')
    expect(kept.byteLength).toBe(256 * 1024)
    expect([kept[0], kept.at(-1)]).toEqual([99, 102])
    expect(await readConsole(store.read, 'inst-b')).toEqual(Buffer.alloc(0))
  })
})
