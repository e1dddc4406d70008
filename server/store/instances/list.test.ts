import { type DesiredPower, instanceStates } from '@berth/contract/instances/states.ts'
import type { LabelRequirement } from '@berth/contract/label-selector.ts'
import fc from 'fast-check'
import { sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import { insertHostIfAbsent } from '../hosts/hosts.ts'
import type { Store } from '../store.ts'
import { engines, sqliteUnderTest } from '../testing/engines.ts'
import { report, storedInstance } from '../testing/instances.ts'
import { storesOn } from '../testing/stores.ts'
import { countInstancesByState } from '../totals.ts'
import { deleteInstance, insertInstance, type StoredInstance, stateOf, updateDescription } from './instances.ts'
import { type InstanceFilter, listInstances, pageQuery } from './list.ts'

const keys = ['env', 'team', 'a.b/c-d_e', '__proto__']
const values = ['', 'x', 'y', 'z']
const hosts = ['host-a', 'host-b']

const pick = <const T>(of: readonly T[]) => fc.constantFrom(...of)
const labels = fc.dictionary(pick(keys), pick(values), { noNullPrototype: true })
const powers = ['starting', 'running', 'shutting_down', 'off', 'absent'] as const

const someInstance = fc.record({
  name: pick(['web', 'db', 'we']),
  labels,
  vpc_id: pick(['vpc-a', 'vpc-b']),
  subnet_id: pick(['subnet-a', 'subnet-b']),
  host_id: pick([null, ...hosts]),
  desired: pick<DesiredPower>(['running', 'stopped', 'deleted']),
  power: pick([null, ...powers]),
  terminated: fc.boolean(),
})

const requirement: fc.Arbitrary<LabelRequirement> = fc.oneof(
  fc.record({
    operator: pick(['in', 'not_in']),
    key: pick(keys),
    values: fc.uniqueArray(pick(values), { minLength: 1 }),
  }),
  fc.record({ operator: pick(['exists', 'absent']), key: pick(keys) }),
)

const someLabels = fc.array(requirement, { maxLength: 4 })

const filterOfAnything: fc.Arbitrary<InstanceFilter> = fc.record(
  {
    name: pick(['web', 'db', 'none', '']),
    state: pick(instanceStates),
    host_id: pick(['host-a', 'host-none', '']),
    vpc_id: pick(['vpc-a', 'vpc-none']),
    subnet_id: pick(['subnet-b']),
    labels: someLabels,
  },
  { requiredKeys: ['labels'] },
)

/** Half of them of labels alone: beside an id, labels seldom decide which way a list goes. */
const someFilter: fc.Arbitrary<InstanceFilter> = fc.oneof(filterOfAnything, fc.record({ labels: someLabels }))

/** What a filter means, said once more and in the simplest way. */
function wanted(instance: StoredInstance, filter: InstanceFilter): boolean {
  const state = stateOf(instance)
  if (filter.state === undefined ? state === 'terminated' : state !== filter.state) return false
  for (const column of ['name', 'host_id', 'vpc_id', 'subnet_id'] as const) {
    if (filter[column] !== undefined && filter[column] !== instance[column]) return false
  }
  const own = new Map(Object.entries(instance.labels))
  return filter.labels.every((each) => {
    const value = own.get(each.key)
    if (each.operator === 'exists') return value !== undefined
    if (each.operator === 'absent') return value === undefined
    const listed = value !== undefined && each.values.includes(value)
    return each.operator === 'in' ? listed : !listed
  })
}

/** Every page of a list, one after the other. */
async function pages(store: Store, filter: InstanceFilter, limit: number): Promise<string[]> {
  const ids: string[] = []
  for (;;) {
    const after = ids.at(-1)
    const from = after === undefined ? { limit } : { after, limit }
    const { items: page, behind } = await listInstances(store.read, filter, from)
    expect(behind).toBe(null) // there are fewer than are looked at
    expect(page.length).toBeLessThanOrEqual(limit)
    if (after !== undefined) expect(page.find(({ id }) => id <= after)?.id).toBeUndefined() // or it would never end
    ids.push(...page.map((instance) => instance.id))
    if (page.length < limit) return ids
  }
}

let count = 0

function stored(some: typeof someInstance extends fc.Arbitrary<infer T> ? T : never): StoredInstance {
  const { power, terminated, ...rest } = some
  const id = `inst-${String(count++).padStart(8, '0')}`
  return storedInstance(id, {
    ...rest,
    report: power === null ? null : report(id, power),
    terminated_at: terminated ? 5 : null,
  })
}

describe.each(engines)('lists of instances on $name', (engine) => {
  const openStore = storesOn(engine)

  test('any filter gives exactly what a plain look at every instance gives, in pages of any size', async () => {
    const store = await openStore()
    const all: StoredInstance[] = []
    await store.write(async (tx) => {
      for (const id of hosts) await insertHostIfAbsent(tx, { id, name: id, created_at: 0 })
    })
    await fc.assert(
      fc.asyncProperty(
        fc.array(someInstance, { maxLength: 12 }),
        fc.array(fc.tuple(someFilter, fc.integer({ min: 1, max: 20 })), { minLength: 1, maxLength: 6 }),
        async (more, queries) => {
          const instances = more.map(stored)
          await store.write(async (tx) => {
            for (const instance of instances) await insertInstance(tx, instance)
          })
          all.push(...instances)
          for (const [filter, limit] of queries) {
            const expected = all.filter((instance) => wanted(instance, filter)).map((instance) => instance.id)
            expect({ filter, ids: await pages(store, filter, limit) }).toEqual({ filter, ids: expected })
          }
        },
      ),
      { numRuns: 60 },
    )
    const counted = await countInstancesByState(store.read)
    for (const state of instanceStates) {
      const expected = all.filter((instance) => stateOf(instance) === state).length
      expect({ state, n: counted.get(state) ?? 0 }).toEqual({ state, n: expected })
    }
  })

  test('more than the 500 instances that are counted to choose a way are found all the same', async () => {
    const store = await openStore()
    const all = Array.from({ length: 1203 }, (_, i) =>
      storedInstance(`inst-${String(i).padStart(6, '0')}`, {
        labels: { env: i % 2 === 0 ? 'even' : 'odd', third: String(i % 3) },
        name: i % 5 === 0 ? 'five' : 'other',
      }),
    )
    await store.write(async (tx) => {
      for (const instance of all) await insertInstance(tx, instance)
    })
    const both = [
      { operator: 'in', key: 'env', values: ['even', 'odd'] },
      { operator: 'in', key: 'third', values: ['0', '1'] },
    ] as const
    for (const filter of [
      { labels: both },
      { labels: [...both].reverse() },
      { labels: both, name: 'five' },
      { labels: [{ operator: 'not_in', key: 'env', values: ['even'] }], name: 'other' },
      { labels: [{ operator: 'exists', key: 'third' }] },
    ] as const) {
      const expected = all.filter((instance) => wanted(instance, filter)).map((instance) => instance.id)
      expect(expected.length).toBeGreaterThan(100)
      expect(await pages(store, filter, 97)).toEqual(expected)
    }
  })

  test('labels follow a change of metadata, and go with the instance', async () => {
    const store = await openStore()
    const instance = storedInstance('inst-a', { labels: { env: 'x' } })
    await store.write((tx) => insertInstance(tx, instance))
    const having = (value: string) => pages(store, { labels: [{ operator: 'in', key: 'env', values: [value] }] }, 10)
    await store.write((tx) =>
      updateDescription(tx, instance, { name: 'new', labels: { env: 'y' }, security_groups: [] }),
    )
    expect(await having('x')).toEqual([])
    expect(await having('y')).toEqual(['inst-a'])
    await store.write((tx) => deleteInstance(tx, 'inst-a'))
    expect(await having('y')).toEqual([])
    expect(await store.read.selectFrom('instance_labels').selectAll().execute()).toEqual([])
  })
})

describe('a page on SQLite', () => {
  const openStore = storesOn(sqliteUnderTest())

  test.each([
    ['of any instances', null],
    ['of one value of a label', { operator: 'in', key: 'env', values: ['x'] }],
    ['of several values of a label', { operator: 'in', key: 'env', values: ['x', 'y', 'z'] }],
  ] as const)('%s is read in order, however many there are: nothing is sorted', async (_, driver) => {
    const store = await openStore()
    const labels = [{ operator: 'not_in', key: 'team', values: ['y'] }] as const
    const page = { after: 'inst-a', limit: 100 }
    const plan = await pageQuery(store.read, driver, { labels }, page).explain(undefined, sql`query plan`)
    expect(JSON.stringify(plan)).toMatch(/SEARCH instances USING INDEX/)
    expect(JSON.stringify(plan)).not.toMatch(/TEMP B-TREE/)
  })
})
