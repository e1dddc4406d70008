import { ApiError } from '../api-error.ts'
import type { VpcRow } from './schema.ts'
import type { Reader, Transaction } from './store.ts'

/** A VPC as stored, with the counts its status shows. */
export interface StoredVpc extends Omit<VpcRow, 'labels'> {
  labels: Record<string, string>
  subnets: number
  instances: number
}

export async function findVpc(db: Reader, id: string): Promise<StoredVpc | null> {
  const row = await select(db).where('id', '=', id).executeTakeFirst()
  return row === undefined ? null : parse(row)
}

/** The VPC. Throws not_found. */
export async function getVpc(db: Reader, id: string): Promise<StoredVpc> {
  const vpc = await findVpc(db, id)
  if (vpc === null) throw new ApiError('not_found', `There is no VPC ${id}.`)
  return vpc
}

export async function listVpcs(db: Reader): Promise<StoredVpc[]> {
  return (await select(db).orderBy('id').execute()).map(parse)
}

export async function insertVpc(tx: Transaction, vpc: Omit<StoredVpc, 'subnets' | 'instances'>): Promise<void> {
  await tx.db
    .insertInto('vpcs')
    .values({ ...vpc, labels: JSON.stringify(vpc.labels) })
    .execute()
  tx.changed(vpc.id)
}

export async function deleteVpc(tx: Transaction, id: string): Promise<void> {
  await tx.db.deleteFrom('vpcs').where('id', '=', id).execute()
  tx.changed(id)
}

function select(db: Reader) {
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

function parse(row: VpcRow & { subnets: number | null; instances: number | null }): StoredVpc {
  return {
    ...row,
    labels: JSON.parse(row.labels),
    subnets: Number(row.subnets ?? 0),
    instances: Number(row.instances ?? 0),
  }
}
