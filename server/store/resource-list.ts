import { setImmediate as nextTurn } from 'node:timers/promises'
import { type LabelRequirement, matchesLabels } from '@berth/contract/label-selector.ts'
import type { Reader } from './transaction.ts'

/** Behind which key to go on, and how many items to give. */
export interface Page {
  after?: string
  limit: number
}

/**
 * Part of a list. `behind` is the key to go on behind when the look at the list ended before the page was full, null when
 * it went to the end of the page or of the list: what a call costs is bounded, however few items match.
 */
export interface Listed<Item> {
  items: Item[]
  behind: string | null
}

/** Rows that a call looks at to find those that match, and those it looks at before others get their turn. */
export const mostLookedAt = 5000
const lookedAtOnce = 1000

/**
 * Go through rows in the order of their keys for those that match, all of them when `matches` is null. `read` gives rows
 * behind a key, fewer than asked for only at the end.
 */
export async function listMatching<Row extends { id: string }>(
  page: Page,
  matches: ((row: Row) => boolean) | null,
  read: (after: string | undefined, limit: number) => Promise<Row[]>,
): Promise<Listed<Row>> {
  if (matches === null) return { items: await read(page.after, page.limit), behind: null }
  const items: Row[] = []
  let { after } = page
  for (let looked = 0; looked < mostLookedAt; looked += lookedAtOnce) {
    if (looked > 0) await nextTurn()
    const rows = await read(after, lookedAtOnce)
    for (const row of rows) {
      if (matches(row)) items.push(row)
      if (items.length === page.limit) return { items, behind: null }
    }
    if (rows.length < lookedAtOnce) return { items, behind: null }
    after = rows.at(-1)?.id
  }
  return { items, behind: after ?? null }
}

/** What a list of one of the smaller resources is narrowed to. */
export interface ResourceFilter {
  name?: string
  labels: readonly LabelRequirement[]
}

type ResourceTable = 'hosts' | 'vpcs' | 'subnets' | 'security_groups' | 'ssh_keys' | 'public_ips'

/**
 * The ids of a page of one of the smaller resources. Columns have an index and are compared by the database; labels are
 * matched here, since only those of instances have one.
 */
export async function listMatchingIds<Filter extends ResourceFilter>(
  db: Reader,
  table: ResourceTable,
  { labels, ...columns }: Filter,
  page: Page,
): Promise<Listed<string>> {
  const matches =
    labels.length === 0 ? null : (row: { id: string; labels: string }) => matchesLabels(JSON.parse(row.labels), labels)
  const { items, behind } = await listMatching(page, matches, async (after, limit) => {
    let query = db
      .selectFrom(table as 'vpcs') // all have these columns
      .select(['id', 'labels'])
      .orderBy('id')
      .limit(limit)
    if (after !== undefined) query = query.where('id', '>', after)
    for (const [column, wanted] of Object.entries(columns)) {
      if (wanted !== undefined) query = query.where(column as 'name', '=', wanted as string)
    }
    return query.execute()
  })
  return { items: items.map(({ id }) => id), behind }
}

/** What is read of each id of a page, in the same order. */
export async function withRows<Item>(
  { items, behind }: Listed<string>,
  read: (ids: string[]) => Promise<Item[]>,
): Promise<Listed<Item>> {
  return { items: items.length === 0 ? [] : await read(items), behind }
}

/** A part of a list with something else in place of each item. */
export function mapListed<From, To>({ items, behind }: Listed<From>, to: (item: From) => To): Listed<To> {
  return { items: items.map(to), behind }
}
