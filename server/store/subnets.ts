import { ApiError } from '../api-error.ts'
import type { SubnetRow } from './schema.ts'
import type { Reader, Transaction } from './store.ts'

/** A subnet as stored, with the number of addresses its instances hold. */
export interface StoredSubnet extends Omit<SubnetRow, 'labels'> {
  labels: Record<string, string>
  used: number
}

export async function findSubnet(db: Reader, id: string): Promise<StoredSubnet | null> {
  const row = await select(db).where('id', '=', id).executeTakeFirst()
  return row === undefined ? null : parse(row)
}

/** The subnet. Throws not_found. */
export async function getSubnet(db: Reader, id: string): Promise<StoredSubnet> {
  const subnet = await findSubnet(db, id)
  if (subnet === null) throw new ApiError('not_found', `There is no subnet ${id}.`)
  return subnet
}

/** Subnets by id; of one VPC when it is named. */
export async function listSubnets(db: Reader, vpcId?: string): Promise<StoredSubnet[]> {
  const query = select(db).orderBy('id')
  return (await (vpcId === undefined ? query : query.where('vpc_id', '=', vpcId)).execute()).map(parse)
}

export async function insertSubnet(tx: Transaction, subnet: Omit<StoredSubnet, 'used'>): Promise<void> {
  await tx.db
    .insertInto('subnets')
    .values({ ...subnet, labels: JSON.stringify(subnet.labels) })
    .execute()
  tx.changed(subnet.id)
}

export async function deleteSubnet(tx: Transaction, id: string): Promise<void> {
  await tx.db.deleteFrom('subnet_addresses').where('subnet_id', '=', id).execute()
  await tx.db.deleteFrom('subnets').where('id', '=', id).execute()
  tx.changed(id)
}

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
    await tx.db
      .updateTable('subnets')
      .set({ next_offset: subnet.next_offset + 1 })
      .where('id', '=', subnet.id)
      .where('next_offset', '=', subnet.next_offset)
      .executeTakeFirstOrThrow()
    await tx.db
      .insertInto('subnet_addresses')
      .values({ subnet_id: subnet.id, address: fresh, instance_id: instanceId, freed_at: 0 })
      .execute()
    return fresh
  }
  const free = await tx.db
    .selectFrom('subnet_addresses')
    .select('address')
    .where('subnet_id', '=', subnet.id)
    .where('instance_id', 'is', null)
    .orderBy('freed_at')
    .executeTakeFirst()
  if (free === undefined) return null
  await tx.db
    .updateTable('subnet_addresses')
    .set({ instance_id: instanceId })
    .where('subnet_id', '=', subnet.id)
    .where('address', '=', free.address)
    .execute()
  return free.address
}

/** Free the address an instance holds. */
export async function freeAddress(tx: Transaction, instanceId: string, now: number): Promise<void> {
  await tx.db
    .updateTable('subnet_addresses')
    .set({ instance_id: null, freed_at: now })
    .where('instance_id', '=', instanceId)
    .execute()
}

function select(db: Reader) {
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

function parse(row: SubnetRow & { used: number | null }): StoredSubnet {
  return { ...row, labels: JSON.parse(row.labels), used: Number(row.used ?? 0) }
}
