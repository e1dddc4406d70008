import type { SecurityGroupRule } from '@berth/contract/security-groups.ts'
import { ApiError } from '../api-error.ts'
import type { SecurityGroupRow } from './schema.ts'
import type { Reader, Transaction } from './store.ts'

/** A security group as stored, with the number of live instances that carry it. */
export interface StoredSecurityGroup extends Omit<SecurityGroupRow, 'labels' | 'rules'> {
  labels: Record<string, string>
  rules: SecurityGroupRule[]
  instances: number
}

/** The security group. Throws not_found. */
export async function getSecurityGroup(db: Reader, id: string): Promise<StoredSecurityGroup> {
  const row = await select(db).where('id', '=', id).executeTakeFirst()
  if (row === undefined) throw new ApiError('not_found', `There is no security group ${id}.`)
  return parse(row)
}

export async function listSecurityGroups(db: Reader): Promise<StoredSecurityGroup[]> {
  return (await select(db).orderBy('id').execute()).map(parse)
}

/** Which of these ids exist. */
export async function listKnownSecurityGroupIds(db: Reader, ids: readonly string[]): Promise<Set<string>> {
  if (ids.length === 0) return new Set()
  const rows = await db
    .selectFrom('security_groups')
    .select('id')
    .where('id', 'in', [...ids])
    .execute()
  return new Set(rows.map((row) => row.id))
}

/** Make a group; does nothing when its id exists. */
export async function insertSecurityGroupIfAbsent(
  tx: Transaction,
  group: Omit<StoredSecurityGroup, 'instances'>,
): Promise<void> {
  await tx.db
    .insertInto('security_groups')
    .values({ ...group, labels: JSON.stringify(group.labels), rules: JSON.stringify(group.rules) })
    .onConflict((c) => c.column('id').doNothing())
    .execute()
  tx.changed(group.id)
}

function select(db: Reader) {
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

function parse(row: SecurityGroupRow & { instances: number | null }): StoredSecurityGroup {
  return {
    ...row,
    labels: JSON.parse(row.labels),
    rules: JSON.parse(row.rules),
    instances: Number(row.instances ?? 0),
  }
}
