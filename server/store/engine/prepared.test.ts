import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Store } from '../store.ts'
import { engines, type TestDatabase } from '../testing/engines.ts'
import { insertRow, insertRows, prepare } from './prepared.ts'

const row = (id: string, name: string) => ({
  id,
  name,
  labels: '{}',
  created_at: 0,
  cidr: '10.0.0.0/16',
  is_default: 0,
  uid: '',
  generation: 1,
})

describe.each(engines)('prepared queries on $name', (engine) => {
  const open: TestDatabase[] = []
  beforeAll(() => engine.start())
  afterAll(() => engine.stop())
  afterEach(async () => {
    for (const database of open.splice(0)) await database.remove()
  })

  async function openStore(): Promise<Store> {
    const made = await engine.create()
    open.push(made)
    return made.open()
  }

  test('each run has its own values, in whatever order they are given', async () => {
    const store = await openStore()
    let built = 0
    const named = prepare((db, place) => {
      built++
      return db.selectFrom('vpcs').select('id').where('name', '=', place('name')).where('id', '>', place('after'))
    })
    await store.write(async (tx) => {
      for (const [id, name] of [
        ['vpc-a', 'one'],
        ['vpc-b', 'two'],
        ['vpc-c', 'two'],
      ] as const) {
        await insertRow(tx.db, 'vpcs', row(id, name))
      }
      expect(await named.all(tx.db, { after: 'vpc-b', name: 'two' }), 'inside the transaction').toEqual([
        { id: 'vpc-c' },
      ])
    })
    expect(await named.first(store.read, { name: 'one', after: '' })).toEqual({ id: 'vpc-a' })
    expect(await named.all(store.read, { after: '', name: 'two' })).toHaveLength(2)
    expect(await named.first(store.read, { name: 'three', after: '' })).toBeUndefined()
    expect(built).toBeLessThanOrEqual(2) // once for each connection, not for each run
  })

  test('a statement gives the number of rows it changed', async () => {
    const store = await openStore()
    const rename = prepare((db, place) =>
      db
        .updateTable('vpcs')
        .set({ name: place('name') })
        .where('id', '=', place('id')),
    )
    await store.write((tx) => insertRow(tx.db, 'vpcs', row('vpc-a', 'one')))
    expect(await store.write((tx) => rename.run(tx.db, { id: 'vpc-a', name: 'two' }))).toBe(1)
    expect(await store.write((tx) => rename.run(tx.db, { id: 'vpc-b', name: 'two' }))).toBe(0)
    const stored = await store.read.selectFrom('vpcs').select('name').execute()
    expect(stored).toEqual([{ name: 'two' }])
  })

  test.each([0, 1, 15, 16, 17, 50])('%i rows are inserted whole and in their order', async (count) => {
    const store = await openStore()
    const rows = Array.from({ length: count }, (_, i) => ({
      at: i,
      type: `type-${i}`,
      resource_id: `r-${i}`,
      detail: '',
    }))
    await store.write((tx) => insertRows(tx.db, 'events', rows))
    const stored = await store.read.selectFrom('events').selectAll().orderBy('sequence').execute()
    expect(stored.map(({ sequence: _, ...row }) => row)).toEqual(rows)
  })

  test('a run without the value of a place fails and changes nothing', async () => {
    const store = await openStore()
    const remove = prepare((db, place) => db.deleteFrom('vpcs').where('id', '!=', place('id')))
    await store.write((tx) => insertRow(tx.db, 'vpcs', row('vpc-a', 'one')))
    await expect(store.write((tx) => remove.run(tx.db, {}))).rejects.toThrow('no value for id')
    expect(await store.read.selectFrom('vpcs').select('id').execute()).toHaveLength(1)
  })
})
