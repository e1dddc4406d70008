import { LabelSelectorError, parseLabelSelector } from '@berth/contract/label-selector.ts'
import { ApiError } from '../../api-error.ts'
import type { Listed, Page, ResourceFilter } from '../../store/resource-list.ts'
import { decodeCursor, encodeCursor } from './cursor.ts'

/** What every list's query has. */
interface ListQuery {
  limit?: number
  cursor?: string
}

/**
 * Answer a list: one item more than asked for is read, to know whether there is a next page. A page may be shorter than
 * asked for, even empty, and still have a next one: few items match, and the look for them was ended.
 */
export async function answerPage<Query extends ListQuery, Item>(
  query: Query,
  read: (filter: Omit<Query, keyof ListQuery>, page: Page) => Promise<Listed<Item>>,
  keyOf: (item: Item) => string,
): Promise<{ items: Item[]; next_cursor?: string }> {
  const { limit = 1000, cursor, ...filter } = query
  const after = cursor === undefined ? {} : { after: decodeCursor(cursor, filter) }
  const { items, behind } = await read(filter, { ...after, limit: limit + 1 })
  if (items.length <= limit) {
    return behind === null ? { items } : { items, next_cursor: encodeCursor(behind, filter) }
  }
  const page = items.slice(0, limit)
  const last = page.at(-1)
  return last === undefined ? { items: page } : { items: page, next_cursor: encodeCursor(keyOf(last), filter) }
}

/** The filter of a query whose label selector is still text. Throws invalid_query. */
export function withLabels<Query extends { label_selector?: string }>({
  label_selector: selector = '',
  ...filter
}: Query): Omit<Query, 'label_selector'> & Pick<ResourceFilter, 'labels'> {
  try {
    return { ...filter, labels: parseLabelSelector(selector) }
  } catch (error) {
    if (error instanceof LabelSelectorError) throw new ApiError('invalid_query', `label_selector: ${error.message}`)
    throw error
  }
}
