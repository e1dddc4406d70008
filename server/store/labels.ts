import { isDeepStrictEqual } from 'node:util'
import type { UpdateResult } from 'kysely'
import { ApiError } from '../api-error.ts'
import type { Transaction } from './transaction.ts'

/** The smaller resources of which a caller may change name and labels alone, by their tables. */
const resources = { vpcs: 'vpc', ssh_keys: 'ssh_key', images: 'image' } as const

export interface StoredMetadata {
  id: string
  name: string
  labels: Record<string, string>
  generation: number
}

/** Change name and labels of the version that was read, and raise its generation; nothing when they are the same. */
export async function updateResourceMetadata(
  tx: Transaction,
  table: keyof typeof resources,
  read: StoredMetadata,
  { name, labels }: Pick<StoredMetadata, 'name' | 'labels'>,
): Promise<void> {
  if (!differs(read, { name, labels })) return
  const generation = read.generation + 1
  const result = await tx.db
    .updateTable(table)
    .set({ name, labels: JSON.stringify(labels), generation })
    .where('id', '=', read.id)
    .where('generation', '=', read.generation)
    .executeTakeFirst()
  expectUpdated(result, read.id)
  tx.changed({ resource: resources[table], id: read.id, action: 'updated', detail: { generation } })
}

/** Whether values would change what was read. The order of an object's fields does not count, that of an array does. */
export function differs<T extends object>(read: T, values: Partial<T>): boolean {
  return Object.entries(values).some(([name, value]) => !isDeepStrictEqual(value, Reflect.get(read, name)))
}

/** Throws unavailable unless the version that was read was still there to be changed. */
export function expectUpdated(result: UpdateResult, id: string): void {
  if (result.numUpdatedRows === 1n) return
  throw new ApiError('unavailable', `${id} changed at the same moment; try again.`)
}
