import type { ObservedInstance } from '@berth/contract/host.ts'
import type { DesiredPower } from '@berth/contract/instance-states.ts'
import { ApiError } from '../api-error.ts'
import type { InstanceRow } from './schema.ts'
import type { Reader, Transaction } from './store.ts'

/** An instance as stored, its JSON columns parsed. Times are milliseconds UTC. */
export interface StoredInstance
  extends Omit<InstanceRow, 'labels' | 'security_groups' | 'ssh_key_ids' | 'desired' | 'report'> {
  labels: Record<string, string>
  security_groups: string[]
  ssh_key_ids: string[]
  desired: DesiredPower
  report: ObservedInstance | null
}

export interface InstanceFilter {
  limit: number
  /** Only ids greater than this one. */
  after?: string
  name?: string
  terminated: boolean
}

/** The instance, or null. Terminated ones are found until their tombstone is removed. */
export async function findInstance(db: Reader, id: string): Promise<StoredInstance | null> {
  const row = await db.selectFrom('instances').selectAll().where('id', '=', id).executeTakeFirst()
  return row === undefined ? null : parse(row)
}

/** The instance. Throws not_found. */
export async function getInstance(db: Reader, id: string): Promise<StoredInstance> {
  const instance = await findInstance(db, id)
  if (instance === null) throw new ApiError('not_found', `There is no instance ${id}.`)
  return instance
}

/** Instances by id, which is the order they were made in. */
export async function listInstances(db: Reader, filter: InstanceFilter): Promise<StoredInstance[]> {
  let query = db.selectFrom('instances').selectAll().orderBy('id').limit(filter.limit)
  query = query.where('terminated_at', filter.terminated ? 'is not' : 'is', null)
  if (filter.after !== undefined) query = query.where('id', '>', filter.after)
  if (filter.name !== undefined) query = query.where('name', '=', filter.name)
  return (await query.execute()).map(parse)
}

/** All instances placed on a host that it still has to know of, by id. */
export async function listInstancesOfHost(db: Reader, hostId: string): Promise<StoredInstance[]> {
  const rows = await db
    .selectFrom('instances')
    .selectAll()
    .where('host_id', '=', hostId)
    .where('terminated_at', 'is', null)
    .orderBy('id')
    .execute()
  return rows.map(parse)
}

/** Instances that wait for a host, oldest first, behind an id. */
export async function listUnplacedInstances(db: Reader, after: string, limit: number): Promise<StoredInstance[]> {
  const rows = await db
    .selectFrom('instances')
    .selectAll()
    .where('host_id', 'is', null)
    .where('terminated_at', 'is', null)
    .where('desired', '!=', 'deleted')
    .where('id', '>', after)
    .orderBy('id')
    .limit(limit)
    .execute()
  return rows.map(parse)
}

/** Store a new instance with the rows that index it. */
export async function insertInstance(tx: Transaction, instance: StoredInstance): Promise<void> {
  await tx.db
    .insertInto('instances')
    .values({
      ...instance,
      labels: JSON.stringify(instance.labels),
      security_groups: JSON.stringify(instance.security_groups),
      ssh_key_ids: JSON.stringify(instance.ssh_key_ids),
      report: instance.report === null ? null : JSON.stringify(instance.report),
    })
    .execute()
  const labels = Object.entries(instance.labels).map(([key, value]) => ({ instance_id: instance.id, key, value }))
  if (labels.length > 0) await tx.db.insertInto('instance_labels').values(labels).execute()
  const groups = instance.security_groups.map((id) => ({ instance_id: instance.id, security_group_id: id }))
  if (groups.length > 0) await tx.db.insertInto('instance_security_groups').values(groups).execute()
  const keys = instance.ssh_key_ids.map((id) => ({ instance_id: instance.id, ssh_key_id: id }))
  if (keys.length > 0) await tx.db.insertInto('instance_ssh_keys').values(keys).execute()
  tx.changed(instance.id)
}

export type InstanceIntent = Partial<
  Pick<
    StoredInstance,
    'desired' | 'grace_seconds' | 'reboots' | 'reboot_grace_seconds' | 'reason' | 'message' | 'operation_id'
  >
>

/**
 * Change what is wanted of an instance and raise its generation. `instance` is the version read before, in the same
 * transaction; gives the new version.
 */
export async function updateIntent(
  tx: Transaction,
  instance: StoredInstance,
  intent: InstanceIntent,
): Promise<StoredInstance> {
  const generation = instance.generation + 1
  await updateFenced(tx, instance, { ...intent, generation })
  return { ...instance, ...intent, generation }
}

/** Record which host an instance is placed on. */
export async function updatePlacement(
  tx: Transaction,
  instance: StoredInstance,
  placement: { host_id: string; scheduled_at: number },
): Promise<void> {
  await updateFenced(tx, instance, { ...placement, refusal: '' })
}

/** Record why no host took an instance. */
export async function updateRefusal(tx: Transaction, instance: StoredInstance, refusal: string): Promise<void> {
  await updateFenced(tx, instance, { refusal })
}

/** Store what a host reports of an instance. */
export async function updateReport(
  tx: Transaction,
  instance: StoredInstance,
  report: ObservedInstance,
): Promise<StoredInstance> {
  await updateFenced(tx, instance, { report: JSON.stringify(report) })
  return { ...instance, report }
}

/** Make an instance a tombstone: readable for a while, holding nothing. */
export async function updateTerminated(
  tx: Transaction,
  instance: StoredInstance,
  now: number,
): Promise<StoredInstance> {
  await updateFenced(tx, instance, { terminated_at: now })
  return { ...instance, terminated_at: now }
}

/** Note the operation that a caller should look at, without a change of intent. */
export async function updateLatestOperation(tx: Transaction, instance: StoredInstance, id: string): Promise<void> {
  await updateFenced(tx, instance, { operation_id: id })
}

/** Ids of tombstones older than a time. */
export async function listExpiredInstances(db: Reader, before: number, limit: number): Promise<string[]> {
  const rows = await db.selectFrom('instances').select('id').where('terminated_at', '<', before).limit(limit).execute()
  return rows.map((row) => row.id)
}

/** Remove a tombstone and what hangs on it. */
export async function deleteInstance(tx: Transaction, id: string): Promise<void> {
  await tx.db.deleteFrom('instances').where('id', '=', id).execute()
  tx.changed(id)
}

async function updateFenced(tx: Transaction, read: StoredInstance, values: Partial<InstanceRow>): Promise<void> {
  const result = await tx.db
    .updateTable('instances')
    .set(values)
    .where('id', '=', read.id)
    .where('generation', '=', read.generation)
    .executeTakeFirst()
  if (result.numUpdatedRows !== 1n) {
    throw new ApiError('unavailable', `Instance ${read.id} changed at the same moment; try again.`)
  }
  tx.changed(read.id)
}

function parse(row: InstanceRow): StoredInstance {
  return {
    ...row,
    labels: JSON.parse(row.labels),
    security_groups: JSON.parse(row.security_groups),
    ssh_key_ids: JSON.parse(row.ssh_key_ids),
    desired: row.desired as DesiredPower, // CHECK instances_desired
    report: row.report === null ? null : JSON.parse(row.report),
  }
}

/** How many instances, tombstones included, stand in a subnet. */
export async function countInstancesOfSubnet(db: Reader, subnetId: string): Promise<number> {
  const row = await db
    .selectFrom('instances')
    .select((eb) => eb.fn.countAll<number>().as('n'))
    .where('subnet_id', '=', subnetId)
    .executeTakeFirstOrThrow()
  return Number(row.n)
}
