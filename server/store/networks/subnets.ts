import { ApiError } from '../../api-error.ts'
import { insertRow, prepare } from '../engine/prepared.ts'
import { type Listed, listMatchingIds, type Page, type ResourceFilter, withRows } from '../resource-list.ts'
import type { SubnetRow } from '../schema.ts'
import type { Reader, Transaction } from '../transaction.ts'
import { firstVersion } from '../versions.ts'

/** A subnet as stored. */
export interface StoredSubnet extends Omit<SubnetRow, 'labels'> {
  labels: Record<string, string>
}

/** With the number of addresses that its instances hold. */
export interface CountedSubnet extends StoredSubnet {
  used: number
}

const byId = prepare((db, place) => db.selectFrom('subnets').selectAll().where('id', '=', place('id')))

export async function findSubnet(db: Reader, id: string): Promise<StoredSubnet | null> {
  const row = await byId.first(db, { id })
  return row === undefined ? null : parse(row)
}

/** The subnet with the addresses in use. Throws not_found. */
export async function getSubnet(db: Reader, id: string): Promise<CountedSubnet> {
  const row = await counted(db).where('id', '=', id).executeTakeFirst()
  if (row === undefined) throw new ApiError('not_found', `There is no subnet ${id}.`)
  return parse(row)
}

export async function listSubnets(
  db: Reader,
  filter: ResourceFilter & { vpc_id?: string },
  page: Page,
): Promise<Listed<CountedSubnet>> {
  return withRows(await listMatchingIds(db, 'subnets', filter, page), async (ids) =>
    (await counted(db).where('id', 'in', ids).orderBy('id').execute()).map(parse),
  )
}

/** All subnets of some VPCs, by id. */
export async function listSubnetsOfVpcs(db: Reader, vpcIds: readonly string[]): Promise<StoredSubnet[]> {
  if (vpcIds.length === 0) return []
  const rows = await db
    .selectFrom('subnets')
    .selectAll()
    .where('vpc_id', 'in', [...vpcIds])
    .orderBy('id')
    .execute()
  return rows.map(parse)
}

export async function insertSubnet(
  tx: Transaction,
  subnet: Omit<StoredSubnet, 'uid' | 'generation'>,
): Promise<StoredSubnet> {
  const stored = { ...subnet, ...firstVersion() }
  await insertRow(tx.db, 'subnets', { ...stored, labels: JSON.stringify(stored.labels) })
  tx.changed({ resource: 'subnet', id: subnet.id, action: 'created' })
  return stored
}

export async function deleteSubnet(tx: Transaction, id: string): Promise<void> {
  await tx.db.deleteFrom('subnet_addresses').where('subnet_id', '=', id).execute()
  await tx.db.deleteFrom('subnets').where('id', '=', id).execute()
  tx.changed({ resource: 'subnet', id, action: 'deleted' })
}

const takeOffset = prepare((db, place) =>
  db
    .updateTable('subnets')
    .set({ next_offset: place('next') })
    .where('id', '=', place('id'))
    .where('next_offset', '=', place('offset')),
)

/**
 * Take an address of a subnet for an instance, or null when none is free. Never-used addresses go first, then the one
 * that has been free longest, so a freed address is handed out again as late as possible. `addressAt` gives the
 * address at an offset from the network address, or null behind the last usable one. Unique by constraint.
 */
export async function takeAddress(
  tx: Transaction,
  subnet: StoredSubnet,
  instanceId: string,
  addressAt: (offset: number) => string | null,
): Promise<string | null> {
  const fresh = addressAt(subnet.next_offset)
  if (fresh !== null) {
    const { id, next_offset: offset } = subnet
    if ((await takeOffset.run(tx.db, { id, offset, next: offset + 1 })) !== 1) {
      throw new Error(`an address of subnet ${id} was taken meanwhile`)
    }
    await insertRow(tx.db, 'subnet_addresses', { subnet_id: id, address: fresh, instance_id: instanceId, freed_at: 0 })
    return fresh
  }
  const free = await findFreedAddress(tx.db, subnet.id)
  if (free === null) return null
  await tx.db
    .updateTable('subnet_addresses')
    .set({ instance_id: instanceId })
    .where('subnet_id', '=', subnet.id)
    .where('address', '=', free)
    .execute()
  return free
}

/** The address of a subnet that has been free longest since an instance had it, or null. */
export async function findFreedAddress(db: Reader, subnetId: string): Promise<string | null> {
  const free = await db
    .selectFrom('subnet_addresses')
    .select('address')
    .where('subnet_id', '=', subnetId)
    .where('instance_id', 'is', null)
    .orderBy('freed_at')
    .limit(1)
    .executeTakeFirst()
  return free?.address ?? null
}

const holder = prepare((db, place) =>
  db
    .selectFrom('subnet_addresses')
    .innerJoin('subnets', 'subnets.id', 'subnet_addresses.subnet_id')
    .select('subnet_addresses.instance_id')
    .where('subnets.vpc_id', '=', place('vpc_id'))
    .where('subnet_addresses.address', '=', place('address')),
)

/** Id of the instance that holds a private address in a VPC, or null. */
export async function findInstanceByAddress(db: Reader, vpcId: string, address: string): Promise<string | null> {
  return (await holder.first(db, { vpc_id: vpcId, address }))?.instance_id ?? null
}

/** Free the address an instance holds. */
export async function freeAddress(tx: Transaction, instanceId: string, now: number): Promise<void> {
  await tx.db
    .updateTable('subnet_addresses')
    .set({ instance_id: null, freed_at: now })
    .where('instance_id', '=', instanceId)
    .execute()
}

function counted(db: Reader) {
  return db
    .selectFrom('subnets')
    .selectAll()
    .select((eb) =>
      eb
        .selectFrom('subnet_addresses')
        .select((s) => s.fn.countAll<number>().as('n'))
        .whereRef('subnet_addresses.subnet_id', '=', 'subnets.id')
        .where('subnet_addresses.instance_id', 'is not', null)
        .as('used'),
    )
}

function parse<Row extends SubnetRow & { used?: number | null }>(row: Row) {
  return { ...row, labels: JSON.parse(row.labels), used: Number(row.used ?? 0) }
}
