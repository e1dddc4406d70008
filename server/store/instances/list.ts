import type { InstanceState } from '@berth/contract/instances/states.ts'
import type { LabelRequirement } from '@berth/contract/label-selector.ts'
import { type Expression, expressionBuilder, type SqlBool } from 'kysely'
import { type Listed, listMatching, type Page } from '../resource-list.ts'
import type { Database } from '../schema.ts'
import type { Reader } from '../transaction.ts'
import { parseInstance, type StoredInstance } from './instances.ts'

/** What a list is narrowed to; everything given must hold. Without `state`, terminated instances are left out. */
export interface InstanceFilter {
  name?: string
  state?: InstanceState
  host_id?: string
  vpc_id?: string
  subnet_id?: string
  labels: readonly LabelRequirement[]
}

/**
 * Instances by id, which is the order they were made in. Where the database cannot go from one match to the next, it is
 * given the ids to look at, so many at a time.
 */
export async function listInstances(db: Reader, filter: InstanceFilter, page: Page): Promise<Listed<StoredInstance>> {
  const driver = await chooseDriver(db, filter)
  const { labels, ...columns } = filter
  const rest = labels.filter((requirement) => requirement !== driver)
  const isExact = rest.length === 0 && (driver === null || Object.keys(columns).length === 0)
  if (isExact) {
    return { items: (await pageQuery(db, driver, filter, page).execute()).map(parseInstance), behind: null }
  }
  const matching = new Map<string, StoredInstance>()
  const { items, behind } = await listMatching(
    page,
    ({ id }) => matching.has(id),
    async (after, limit) => {
      const ids = await walk(db, driver, columns, { ...(after === undefined ? {} : { after }), limit })
      const last = ids.at(-1)?.id
      if (last === undefined) return []
      const bounds = { ...(after === undefined ? {} : { after }), upTo: last, limit: page.limit }
      for (const row of await pageQuery(db, driver, filter, bounds).execute()) matching.set(row.id, parseInstance(row))
      return ids
    },
  )
  return { items: items.map(({ id }) => matching.get(id)).filter((instance) => instance !== undefined), behind }
}

/** The ids to look at, in their order. */
function walk(
  db: Reader,
  driver: Driver | null,
  columns: Omit<InstanceFilter, 'labels'>,
  page: Page,
): Promise<{ id: string }[]> {
  if (driver === null) {
    const asked = conditions({ ...columns, labels: [] }, page)
    return db.selectFrom('instances').select('id').where(asked).orderBy('id').limit(page.limit).execute()
  }
  return db
    .selectFrom(labelledIds(db, driver, page).as('labelled'))
    .select('labelled.instance_id as id')
    .limit(page.limit)
    .execute()
}

/** The query of a page that walks along the index of a label, or along the instances themselves when it is null. */
export function pageQuery(db: Reader, driver: Driver | null, filter: InstanceFilter, page: Page & { upTo?: string }) {
  if (driver === null) {
    return db.selectFrom('instances').selectAll().where(conditions(filter, page)).orderBy('id').limit(page.limit)
  }
  const rest = { ...filter, labels: filter.labels.filter((requirement) => requirement !== driver) }
  return db
    .selectFrom(labelledIds(db, driver, page).as('labelled'))
    .crossJoin('instances') // to SQLite a cross join says in which order to go
    .selectAll('instances')
    .whereRef('instances.id', '=', 'labelled.instance_id')
    .where(conditions(rest, page.upTo === undefined ? {} : { upTo: page.upTo }))
    .orderBy('labelled.instance_id')
    .limit(page.limit)
}

/**
 * The ids that have a label, in their order. The index has them in order for each value, and an instance has one value
 * under a key: the database merges the values, no further than it is asked for.
 */
function labelledIds(db: Reader, { key, ...driver }: Driver, { after }: Page) {
  const having = (value: string | null) => {
    let query = db.selectFrom('instance_labels').select('instance_id').where('key', '=', key)
    if (value !== null) query = query.where('value', '=', value)
    return after === undefined ? query : query.where('instance_id', '>', after)
  }
  const [first = null, ...others] = driver.operator === 'in' ? driver.values : []
  return others
    .reduce((ids, value) => ids.unionAll(having(value)), having(first))
    .orderBy('instance_id')
    .limit(noLimit)
}

/** Without a limit SQLite forgets the order of what it reads from, and sorts it all once more. */
const noLimit = Number.MAX_SAFE_INTEGER

/** Everything a filter asks of a row of instances. */
function conditions(filter: InstanceFilter, page: { after?: string; upTo?: string }): Expression<SqlBool> {
  const eb = expressionBuilder<Database, 'instances'>()
  const all: Expression<SqlBool>[] = [
    filter.state === undefined ? eb('instances.state', '!=', 'terminated') : eb('instances.state', '=', filter.state),
  ]
  for (const column of ['name', 'host_id', 'vpc_id', 'subnet_id'] as const) {
    const wanted = filter[column]
    if (wanted !== undefined) all.push(eb(`instances.${column}`, '=', wanted))
  }
  if (page.after !== undefined) all.push(eb('instances.id', '>', page.after))
  if (page.upTo !== undefined) all.push(eb('instances.id', '<=', page.upTo))
  for (const requirement of filter.labels) {
    let labelled = eb
      .selectFrom('instance_labels')
      .select('instance_labels.key')
      .whereRef('instance_labels.instance_id', '=', 'instances.id')
      .where('instance_labels.key', '=', requirement.key)
    if ('values' in requirement) labelled = labelled.where('instance_labels.value', 'in', [...requirement.values])
    const negative = requirement.operator === 'not_in' || requirement.operator === 'absent'
    all.push(negative ? eb.not(eb.exists(labelled)) : eb.exists(labelled))
  }
  return eb.and(all)
}

type Driver = Extract<LabelRequirement, { operator: 'in' } | { operator: 'exists' }>

/** Up to here matches are counted to compare two ways; beyond, one way is as long as the other. */
const countedMatches = 500

/**
 * The requirement whose index the list walks along, or null for the instances themselves: the one with the fewest
 * matches. An index of labels gives the ids in order, so a page costs the same among many instances as among few.
 */
async function chooseDriver(db: Reader, filter: InstanceFilter): Promise<Driver | null> {
  const candidates = filter.labels.filter(
    (requirement): requirement is Driver => requirement.operator === 'in' || requirement.operator === 'exists',
  )
  const columns = (['name', 'host_id', 'vpc_id', 'subnet_id', 'state'] as const).filter((name) => filter[name])
  if (candidates.length === 0) return null
  if (candidates.length === 1 && columns.length === 0) return candidates[0] ?? null
  let best: Driver | null = null
  let fewest = countedMatches + 1
  for (const column of columns) {
    const rows = await db
      .selectFrom('instances')
      .select('id')
      .where(column, '=', filter[column] ?? '')
      .limit(countedMatches)
      .execute()
    fewest = Math.min(fewest, rows.length)
  }
  for (const candidate of candidates) {
    let query = db.selectFrom('instance_labels').select('instance_id').where('key', '=', candidate.key)
    if (candidate.operator === 'in') query = query.where('value', 'in', [...candidate.values])
    const found = (await query.limit(countedMatches).execute()).length
    if (found < fewest) {
      fewest = found
      best = candidate
    }
  }
  return best
}
