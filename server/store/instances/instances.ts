import { isDeepStrictEqual } from 'node:util'
import type { ObservedCondition, ObservedInstance } from '@berth/contract/hosts/agent-protocol.ts'
import { isMachineTrouble, type PanicPolicy } from '@berth/contract/instances/machine-troubles.ts'
import { type DesiredPower, type InstanceState, instanceState } from '@berth/contract/instances/states.ts'
import { ApiError } from '../../api-error.ts'
import type { Change } from '../change.ts'
import { insertRow, prepare } from '../engine/prepared.ts'
import type { InstanceRow } from '../schema.ts'
import type { Reader, Transaction } from '../transaction.ts'
import { differs, updateVersion } from '../versions.ts'

/** An instance as stored, its JSON columns parsed. Times are milliseconds UTC. */
export interface StoredInstance
  extends Omit<
    InstanceRow,
    'labels' | 'security_groups' | 'ssh_key_ids' | 'desired' | 'report' | 'on_capacity' | 'on_panic' | 'state'
  > {
  labels: Record<string, string>
  security_groups: string[]
  ssh_key_ids: string[]
  desired: DesiredPower
  report: ObservedInstance | null
  on_capacity: 'queue' | 'fail'
  on_panic: PanicPolicy
}

/** The public state of a stored instance. */
export function stateOf(instance: StoredInstance): InstanceState {
  if (instance.terminated_at !== null) return 'terminated'
  return instanceState(instance.desired, instance.report?.power ?? null, instance.host_id !== null)
}

const byId = prepare((db, place) => db.selectFrom('instances').selectAll().where('id', '=', place('id')))

/** The instance, or null. Terminated ones are found until their tombstone is removed. */
export async function findInstance(db: Reader, id: string): Promise<StoredInstance | null> {
  const row = await byId.first(db, { id })
  return row === undefined ? null : parseInstance(row)
}

/** The instance. Throws not_found. */
export async function getInstance(db: Reader, id: string): Promise<StoredInstance> {
  const instance = await findInstance(db, id)
  if (instance === null) throw new ApiError('not_found', `There is no instance ${id}.`)
  return instance
}

/** What a host has to know of an instance. */
export interface HostedInstance extends Pick<StoredInstance, (typeof hostedColumns)[number]> {
  /** Generation of the operation that was opened last: every call that asks for power or a reboot opens one. */
  power_since: number
}

const hostedColumns = [
  ...['id', 'generation', 'desired', 'grace_seconds', 'reboots', 'reboot_grace_seconds', 'name', 'type', 'image'],
  ...[
    'vcpus',
    'memory_mb',
    'disk_gb',
    'vpc_id',
    'subnet_id',
    'private_ip',
    'public_ip',
    'mac',
    'security_groups',
    'ssh_key_ids',
    'user_data',
    'operation_id',
    'on_panic',
  ],
] as const

const ofHost = prepare((db, place) =>
  db
    .selectFrom('instances')
    .select(hostedColumns)
    .select((query) =>
      query
        .selectFrom('operations')
        .select('operations.generation')
        .whereRef('operations.id', '=', 'instances.operation_id')
        .as('power_since'),
    )
    .where('host_id', '=', place('host_id'))
    .where('terminated_at', 'is', null)
    .orderBy('id'),
)

/** All instances placed on a host that it still has to know of, by id. */
export async function listInstancesOfHost(db: Reader, hostId: string): Promise<HostedInstance[]> {
  return (await ofHost.all(db, { host_id: hostId })).map((row) => ({
    ...row,
    desired: row.desired as DesiredPower, // CHECK instances_desired
    on_panic: row.on_panic as PanicPolicy, // CHECK of the column
    power_since: row.power_since ?? 1, // that operation is so long past that it is no more kept
    security_groups: JSON.parse(row.security_groups),
    ssh_key_ids: JSON.parse(row.ssh_key_ids),
  }))
}

const hostOf = prepare((db, place) => db.selectFrom('instances').select('host_id').where('id', '=', place('id')))

/** The host that an instance is placed on, or null: it has none, or there is no such instance. */
export async function findHostOf(db: Reader, id: string): Promise<string | null> {
  return (await hostOf.first(db, { id }))?.host_id ?? null
}

/**
 * Compare what a host reports of an instance with the report before: the instance when it differs, 'same' when it does
 * not, null when the host has no such live instance. Most reports say what was said before, so the text is compared.
 */
export async function findReported(
  db: Reader,
  hostId: string,
  report: ObservedInstance,
): Promise<StoredInstance | 'same' | null> {
  const row = await byId.first(db, { id: report.id })
  if (row === undefined || row.host_id !== hostId || row.terminated_at !== null) return null
  return row.report === JSON.stringify(report) ? 'same' : parseInstance(row)
}

const unplaced = prepare((db, place) =>
  db
    .selectFrom('instances')
    .selectAll()
    .where('host_id', 'is', null)
    .where('terminated_at', 'is', null)
    .where('desired', '!=', 'deleted')
    .where('id', '>', place('after'))
    .orderBy('id')
    .limit(place('limit')),
)

/** Instances that wait for a host, oldest first, behind an id. */
export async function listUnplacedInstances(db: Reader, after: string, limit: number): Promise<StoredInstance[]> {
  return (await unplaced.all(db, { after, limit })).map(parseInstance)
}

/** Store a new instance with the rows that index it. */
export async function insertInstance(tx: Transaction, instance: StoredInstance): Promise<void> {
  await insertRow(tx.db, 'instances', {
    ...instance,
    labels: JSON.stringify(instance.labels),
    security_groups: JSON.stringify(instance.security_groups),
    ssh_key_ids: JSON.stringify(instance.ssh_key_ids),
    report: instance.report === null ? null : JSON.stringify(instance.report),
    state: stateOf(instance),
  })
  await insertLabels(tx, instance)
  await insertSecurityGroups(tx, instance)
  for (const id of instance.ssh_key_ids) {
    await insertRow(tx.db, 'instance_ssh_keys', { instance_id: instance.id, ssh_key_id: id })
  }
  tx.changed(change('created', instance))
}

async function insertLabels(tx: Transaction, instance: StoredInstance): Promise<void> {
  for (const [key, value] of Object.entries(instance.labels)) {
    await insertRow(tx.db, 'instance_labels', { instance_id: instance.id, key, value })
  }
}

async function insertSecurityGroups(tx: Transaction, instance: StoredInstance): Promise<void> {
  for (const id of instance.security_groups) {
    await insertRow(tx.db, 'instance_security_groups', { instance_id: instance.id, security_group_id: id })
  }
}

/** What a PATCH may change of an instance. */
export type InstanceDescription = Pick<StoredInstance, 'name' | 'labels' | 'security_groups'>

/**
 * Change name, labels and groups, of which the host need not hear of labels alone: neighbours resolve the name, and groups
 * filter. Gives the new version, which is the one that was read when nothing differs.
 */
export async function updateDescription(
  tx: Transaction,
  instance: StoredInstance,
  values: InstanceDescription,
): Promise<StoredInstance> {
  const { name, labels, security_groups } = values
  const relabelled = differs(instance, { labels })
  const regrouped = differs(instance, { security_groups })
  const isIntent = regrouped || name !== instance.name
  if (!isIntent && !relabelled) return instance
  const changed = await updateFenced(tx, instance, {
    ...values,
    generation: instance.generation + Number(isIntent),
    metadata_revision: instance.metadata_revision + Number(relabelled),
  })
  if (relabelled) {
    await tx.db.deleteFrom('instance_labels').where('instance_id', '=', instance.id).execute()
    await insertLabels(tx, changed)
  }
  if (regrouped) {
    await tx.db.deleteFrom('instance_security_groups').where('instance_id', '=', instance.id).execute()
    await insertSecurityGroups(tx, changed)
  }
  return changed
}

/**
 * Record the public address an instance has, "" for none, which is a change of intent, and what it now says of itself.
 * Gives the new version.
 */
export async function updatePublicAddress(
  tx: Transaction,
  instance: StoredInstance,
  address: string,
  said: Partial<Pick<StoredInstance, 'reason' | 'message'>> = {},
): Promise<StoredInstance> {
  return updateFenced(tx, instance, { ...said, public_ip: address, generation: instance.generation + 1 })
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
  return updateFenced(tx, instance, { ...intent, generation: instance.generation + 1 })
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
  return updateFenced(tx, instance, { report })
}

/** Make an instance a tombstone: readable for a while, holding nothing. */
export async function updateTerminated(
  tx: Transaction,
  instance: StoredInstance,
  now: number,
): Promise<StoredInstance> {
  return updateFenced(tx, instance, { terminated_at: now, public_ip: '' })
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
  tx.changed({ resource: 'instance', id, action: 'deleted' })
}

/** Whether what a host is told of an instance is another now, or whether it is told of it. */
function mustHear(read: StoredInstance, written: StoredInstance): boolean {
  if (read.host_id !== written.host_id || read.terminated_at !== written.terminated_at) return true
  return hostedColumns.some((column) => !isDeepStrictEqual(read[column], written[column]))
}

/** Change columns of the version that was read; fails when there is a newer one. Gives the new version. */
async function updateFenced(
  tx: Transaction,
  read: StoredInstance,
  values: Partial<StoredInstance>,
): Promise<StoredInstance> {
  const written: StoredInstance = { ...read, ...values }
  await updateVersion(tx, 'instances', read, { ...values, state: stateOf(written) })
  if (written.host_id !== null && mustHear(read, written)) tx.tellHosts([written.host_id])
  tx.changed(change('updated', written))
  return written
}

function change(action: 'created' | 'updated', instance: StoredInstance): Change {
  const { generation, operation_id } = instance
  const trouble = troubleOf(instance)
  return {
    resource: 'instance',
    id: instance.id,
    action,
    detail: {
      state: stateOf(instance),
      generation,
      operation_id,
      ...(trouble === null ? {} : { reason: trouble.reason }),
    },
  }
}

/** What its host says of a machine that does not run its guest; null when it does, or is not there. */
export function troubleOf({ desired, report }: StoredInstance): ObservedCondition | null {
  const booted = report?.conditions.Booted
  if (desired !== 'running' || booted === undefined || booted.status === 'true') return null
  return isMachineTrouble(booted.reason) ? booted : null
}

/** A row with its JSON columns parsed. */
export function parseInstance(row: InstanceRow): StoredInstance {
  const { state: _, ...columns } = row
  return {
    ...columns,
    labels: JSON.parse(row.labels),
    security_groups: JSON.parse(row.security_groups),
    ssh_key_ids: JSON.parse(row.ssh_key_ids),
    desired: row.desired as DesiredPower, // CHECK instances_desired
    on_capacity: row.on_capacity === 'fail' ? 'fail' : 'queue',
    on_panic: row.on_panic as PanicPolicy, // CHECK of the column
    report: row.report === null ? null : JSON.parse(row.report),
  }
}

/** Live instances in a subnet, at most `limit`. */
export async function listInstancesInSubnet(db: Reader, subnetId: string, limit: number): Promise<string[]> {
  const rows = await db
    .selectFrom('instances')
    .select('id')
    .where('subnet_id', '=', subnetId)
    .where('terminated_at', 'is', null)
    .orderBy('id')
    .limit(limit)
    .execute()
  return rows.map((row) => row.id)
}
