import type { Transaction } from './store.ts'

/** The smaller resources whose name and labels a caller may change, by their tables. */
const resources = { vpcs: 'vpc', subnets: 'subnet', ssh_keys: 'ssh_key' } as const

export interface StoredMetadata {
  id: string
  name: string
  labels: Record<string, string>
  generation: number
}

/** Change name and labels of the version that was read, and raise its generation. */
export async function updateResourceMetadata(
  tx: Transaction,
  table: keyof typeof resources,
  read: StoredMetadata,
  { name, labels }: Pick<StoredMetadata, 'name' | 'labels'>,
): Promise<void> {
  const generation = read.generation + 1
  await tx.db
    .updateTable(table)
    .set({ name, labels: JSON.stringify(labels), generation })
    .where('id', '=', read.id)
    .where('generation', '=', read.generation)
    .executeTakeFirstOrThrow()
  tx.changed({ resource: resources[table], id: read.id, action: 'updated', detail: { generation } })
}
