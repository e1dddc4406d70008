import { type LabelRequirement, matchesLabels } from '@berth/contract/label-selector.ts'
import type { Page } from './instances/list.ts'

/** What a list of one of the smaller resources is narrowed to. */
export interface ResourceFilter {
  name?: string
  labels: readonly LabelRequirement[]
}

/** Rows read at once while looking for those that match. */
const batchSize = 500

/**
 * A page of a smaller resource in the order of the ids. `read` gives rows behind an id; labels are matched here, since
 * only those of instances have an index.
 */
export async function listMatching<T extends { id: string; name: string; labels: Record<string, string> }>(
  filter: ResourceFilter,
  page: Page,
  read: (after: string, limit: number) => Promise<T[]>,
): Promise<T[]> {
  const items: T[] = []
  const plain = filter.name === undefined && filter.labels.length === 0
  const size = plain ? page.limit : Math.max(batchSize, page.limit)
  let after = page.after ?? ''
  for (;;) {
    const rows = await read(after, size)
    for (const row of rows) {
      if (filter.name !== undefined && row.name !== filter.name) continue
      if (!matchesLabels(row.labels, filter.labels)) continue
      items.push(row)
      if (items.length === page.limit) return items
    }
    const last = rows.at(-1)
    if (last === undefined || rows.length < size) return items
    after = last.id
  }
}
