import { ApiError } from '../../api-error.ts'
import { prepare } from '../engine/prepared.ts'
import { type Listed, listMatchingIds, type Page, type ResourceFilter, withRows } from '../resource-list.ts'
import type { VpcRow } from '../schema.ts'
import type { Reader, Transaction } from '../transaction.ts'
import { firstVersion } from '../versions.ts'

/** A VPC as stored. */
export interface StoredVpc extends Omit<VpcRow, 'labels'> {
  labels: Record<string, string>
}

/** With the counts its status shows. */
export interface CountedVpc extends StoredVpc {
  subnets: number
  instances: number
}

const byId = prepare((db, place) => db.selectFrom('vpcs').selectAll().where('id', '=', place('id')))

export async function findVpc(db: Reader, id: string): Promise<StoredVpc | null> {
  const row = await byId.first(db, { id })
  return row === undefined ? null : parse(row)
}

/** The VPC with its counts. Throws not_found. */
export async function getVpc(db: Reader, id: string): Promise<CountedVpc> {
  const row = await counted(db).where('id', '=', id).executeTakeFirst()
  if (row === undefined) throw new ApiError('not_found', `There is no VPC ${id}.`)
  return parse(row)
}

export async function listVpcs(db: Reader, filter: ResourceFilter, page: Page): Promise<Listed<CountedVpc>> {
  return withRows(await listMatchingIds(db, 'vpcs', filter, page), async (ids) =>
    (await counted(db).where('id', 'in', ids).orderBy('id').execute()).map(parse),
  )
}

/** The VPCs with these ids. */
export async function listVpcsById(db: Reader, ids: readonly string[]): Promise<StoredVpc[]> {
  if (ids.length === 0) return []
  const rows = await db
    .selectFrom('vpcs')
    .selectAll()
    .where('id', 'in', [...ids])
    .orderBy('id')
    .execute()
  return rows.map(parse)
}

export async function insertVpc(tx: Transaction, vpc: Omit<StoredVpc, 'uid' | 'generation'>): Promise<void> {
  await tx.db
    .insertInto('vpcs')
    .values({ ...vpc, labels: JSON.stringify(vpc.labels), ...firstVersion() })
    .execute()
  tx.changed({ resource: 'vpc', id: vpc.id, action: 'created' })
}

export async function deleteVpc(tx: Transaction, id: string): Promise<void> {
  await tx.db.deleteFrom('vpcs').where('id', '=', id).execute()
  tx.changed({ resource: 'vpc', id, action: 'deleted' })
}

function counted(db: Reader) {
  return db
    .selectFrom('vpcs')
    .selectAll()
    .select((eb) => [
      eb
        .selectFrom('subnets')
        .select((s) => s.fn.countAll<number>().as('n'))
        .whereRef('subnets.vpc_id', '=', 'vpcs.id')
        .as('subnets'),
      eb
        .selectFrom('instances')
        .select((s) => s.fn.countAll<number>().as('n'))
        .whereRef('instances.vpc_id', '=', 'vpcs.id')
        .where('instances.terminated_at', 'is', null)
        .as('instances'),
    ])
}

function parse<Row extends VpcRow & { subnets?: number | null; instances?: number | null }>(row: Row) {
  return {
    ...row,
    labels: JSON.parse(row.labels),
    subnets: Number(row.subnets ?? 0),
    instances: Number(row.instances ?? 0),
  }
}
