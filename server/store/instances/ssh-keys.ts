import { ApiError } from '../../api-error.ts'
import { prepare } from '../engine/prepared.ts'
import { type Listed, listMatchingIds, type Page, type ResourceFilter, withRows } from '../resource-list.ts'
import type { SshKeyRow } from '../schema.ts'
import type { Reader, Transaction } from '../transaction.ts'
import { firstVersion } from '../versions.ts'

/** An SSH public key as stored. */
export interface StoredSshKey extends Omit<SshKeyRow, 'labels'> {
  labels: Record<string, string>
}

const byId = prepare((db, place) => db.selectFrom('ssh_keys').selectAll().where('id', '=', place('id')))

export async function findSshKey(db: Reader, id: string): Promise<StoredSshKey | null> {
  const row = await byId.first(db, { id })
  return row === undefined ? null : parse(row)
}

/** The key. Throws not_found. */
export async function getSshKey(db: Reader, id: string): Promise<StoredSshKey> {
  const key = await findSshKey(db, id)
  if (key === null) throw new ApiError('not_found', `There is no SSH key ${id}.`)
  return key
}

export async function listSshKeys(db: Reader, filter: ResourceFilter, page: Page): Promise<Listed<StoredSshKey>> {
  return withRows(await listMatchingIds(db, 'ssh_keys', filter, page), async (ids) =>
    (await db.selectFrom('ssh_keys').selectAll().where('id', 'in', ids).orderBy('id').execute()).map(parse),
  )
}

/** The keys with these ids, by id; ids that do not exist are left out. */
export async function listSshKeysById(db: Reader, ids: readonly string[]): Promise<Map<string, StoredSshKey>> {
  const found = new Map<string, StoredSshKey>()
  for (const id of ids) {
    const key = await findSshKey(db, id)
    if (key !== null) found.set(id, key)
  }
  return found
}

export async function insertSshKey(tx: Transaction, key: Omit<StoredSshKey, 'uid' | 'generation'>): Promise<void> {
  await tx.db
    .insertInto('ssh_keys')
    .values({ ...key, labels: JSON.stringify(key.labels), ...firstVersion() })
    .execute()
  tx.changed({ resource: 'ssh_key', id: key.id, action: 'created' })
}

export async function deleteSshKey(tx: Transaction, id: string): Promise<void> {
  await tx.db.deleteFrom('instance_ssh_keys').where('ssh_key_id', '=', id).execute() // of tombstones only
  await tx.db.deleteFrom('ssh_keys').where('id', '=', id).execute()
  tx.changed({ resource: 'ssh_key', id, action: 'deleted' })
}

/** Live instances that were made with a key, at most `limit`. */
export async function listInstancesWithSshKey(db: Reader, id: string, limit: number): Promise<string[]> {
  const rows = await db
    .selectFrom('instance_ssh_keys')
    .innerJoin('instances', 'instances.id', 'instance_ssh_keys.instance_id')
    .select('instances.id')
    .where('instance_ssh_keys.ssh_key_id', '=', id)
    .where('instances.terminated_at', 'is', null)
    .limit(limit)
    .execute()
  return rows.map((row) => row.id)
}

function parse(row: SshKeyRow): StoredSshKey {
  return { ...row, labels: JSON.parse(row.labels) }
}
