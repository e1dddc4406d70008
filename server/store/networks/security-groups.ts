import type { SecurityGroupRule } from '@berth/contract/networks/security-groups.ts'
import { ApiError } from '../../api-error.ts'
import { prepare } from '../engine/prepared.ts'
import { type Listed, listMatchingIds, type Page, type ResourceFilter, withRows } from '../resource-list.ts'
import type { SecurityGroupRow } from '../schema.ts'
import type { Reader, Transaction } from '../transaction.ts'
import { differs, firstVersion, updateResource } from '../versions.ts'

/** A security group as stored. */
export interface StoredSecurityGroup extends Omit<SecurityGroupRow, 'labels' | 'rules'> {
  labels: Record<string, string>
  rules: SecurityGroupRule[]
}

/** With the number of live instances that carry it. */
export interface CountedSecurityGroup extends StoredSecurityGroup {
  instances: number
}

const byId = prepare((db, place) => db.selectFrom('security_groups').selectAll().where('id', '=', place('id')))

export async function findSecurityGroup(db: Reader, id: string): Promise<StoredSecurityGroup | null> {
  const row = await byId.first(db, { id })
  return row === undefined ? null : parse(row)
}

/** The security group with its number of instances. Throws not_found. */
export async function getSecurityGroup(db: Reader, id: string): Promise<CountedSecurityGroup> {
  const row = await counted(db).where('id', '=', id).executeTakeFirst()
  if (row === undefined) throw new ApiError('not_found', `There is no security group ${id}.`)
  return parse(row)
}

export async function listSecurityGroups(
  db: Reader,
  filter: ResourceFilter,
  page: Page,
): Promise<Listed<CountedSecurityGroup>> {
  return withRows(await listMatchingIds(db, 'security_groups', filter, page), async (ids) =>
    (await counted(db).where('id', 'in', ids).orderBy('id').execute()).map(parse),
  )
}

/** Which of these ids exist. */
export async function listKnownSecurityGroupIds(db: Reader, ids: readonly string[]): Promise<Set<string>> {
  const known = new Set<string>()
  for (const id of ids) if ((await byId.first(db, { id })) !== undefined) known.add(id)
  return known
}

/** Those of these groups that exist, by id. */
export async function listSecurityGroupsById(db: Reader, ids: readonly string[]): Promise<StoredSecurityGroup[]> {
  const groups: StoredSecurityGroup[] = []
  for (const id of [...ids].sort()) {
    const group = await findSecurityGroup(db, id)
    if (group !== null) groups.push(group)
  }
  return groups
}

export async function insertSecurityGroup(
  tx: Transaction,
  group: Omit<StoredSecurityGroup, 'uid' | 'generation'>,
): Promise<void> {
  await tx.db
    .insertInto('security_groups')
    .values({ ...group, labels: JSON.stringify(group.labels), rules: JSON.stringify(group.rules), ...firstVersion() })
    .execute()
  tx.changed({ resource: 'security_group', id: group.id, action: 'created' })
}

/**
 * Change what callers may change of a group; `group` is the version read before. Gives the new version. The hosts that
 * have a member hear of other rules.
 */
export async function updateSecurityGroup(
  tx: Transaction,
  group: CountedSecurityGroup,
  values: Partial<Pick<StoredSecurityGroup, 'name' | 'labels' | 'description' | 'rules'>>,
): Promise<CountedSecurityGroup> {
  const { rules = group.rules } = values
  if (differs(group, { rules })) tx.tellHosts(await listHostsWithSecurityGroup(tx.db, group.id))
  return updateResource<CountedSecurityGroup>(tx, 'security_group', group, values)
}

export async function deleteSecurityGroup(tx: Transaction, id: string): Promise<void> {
  await tx.db.deleteFrom('instance_security_groups').where('security_group_id', '=', id).execute() // of tombstones only
  await tx.db.deleteFrom('security_groups').where('id', '=', id).execute()
  tx.changed({ resource: 'security_group', id, action: 'deleted' })
}

/** Live instances that carry a group, at most `limit`. */
export async function listInstancesWithSecurityGroup(db: Reader, id: string, limit: number): Promise<string[]> {
  const rows = await db
    .selectFrom('instance_security_groups')
    .innerJoin('instances', 'instances.id', 'instance_security_groups.instance_id')
    .select('instances.id')
    .where('instance_security_groups.security_group_id', '=', id)
    .where('instances.terminated_at', 'is', null)
    .limit(limit)
    .execute()
  return rows.map((row) => row.id)
}

/** Hosts that have a live instance with a group. */
async function listHostsWithSecurityGroup(db: Reader, id: string): Promise<string[]> {
  const rows = await db
    .selectFrom('instance_security_groups')
    .innerJoin('instances', 'instances.id', 'instance_security_groups.instance_id')
    .select('instances.host_id')
    .distinct()
    .where('instance_security_groups.security_group_id', '=', id)
    .where('instances.terminated_at', 'is', null)
    .execute()
  return rows.flatMap(({ host_id: hostId }) => (hostId === null ? [] : [hostId]))
}

/** Ids of the other groups that have a rule about this one. */
export async function listGroupsThatName(db: Reader, id: string): Promise<string[]> {
  const rows = await db
    .selectFrom('security_groups')
    .select(['id', 'rules'])
    .where('id', '!=', id)
    .orderBy('id')
    .execute()
  const names = (rule: SecurityGroupRule) => 'security_group' in rule.remote && rule.remote.security_group === id
  return rows.filter((row) => (JSON.parse(row.rules) as SecurityGroupRule[]).some(names)).map((row) => row.id)
}

function counted(db: Reader) {
  return db
    .selectFrom('security_groups')
    .selectAll()
    .select((eb) =>
      eb
        .selectFrom('instance_security_groups')
        .innerJoin('instances', 'instances.id', 'instance_security_groups.instance_id')
        .select((s) => s.fn.countAll<number>().as('n'))
        .whereRef('instance_security_groups.security_group_id', '=', 'security_groups.id')
        .where('instances.terminated_at', 'is', null)
        .as('instances'),
    )
}

function parse<Row extends SecurityGroupRow & { instances?: number | null }>(row: Row) {
  return {
    ...row,
    labels: JSON.parse(row.labels),
    rules: JSON.parse(row.rules),
    instances: Number(row.instances ?? 0),
  }
}
