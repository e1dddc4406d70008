import type { SecurityGroup } from '@berth/contract/security-groups.ts'
import { toRfc3339 } from '@berth/contract/units.ts'
import type { Context } from '../context.ts'
import {
  getSecurityGroup,
  insertSecurityGroupIfAbsent,
  listSecurityGroups,
  type StoredSecurityGroup,
} from '../store/security-groups.ts'
import type { Transaction } from '../store/store.ts'

/** The group of instances that name none. */
export const defaultSecurityGroupId = 'sg-default'

/** Make the project's default group when it is not there: members reach each other, everything may go out. */
export async function ensureDefaultSecurityGroup(ctx: Context, tx: Transaction): Promise<void> {
  await insertSecurityGroupIfAbsent(tx, {
    id: defaultSecurityGroupId,
    name: 'default',
    labels: {},
    created_at: ctx.now(),
    description: 'Members reach each other; everything may go out.',
    rules: [
      {
        direction: 'ingress',
        protocol: 'any',
        remote: { security_group: defaultSecurityGroupId },
        description: 'members of this group',
      },
      { direction: 'egress', protocol: 'any', remote: { cidr: '0.0.0.0/0' }, description: 'everything out' },
    ],
  })
}

export async function readSecurityGroup(ctx: Context, id: string): Promise<SecurityGroup> {
  return document(await getSecurityGroup(ctx.store.read, id))
}

export async function readSecurityGroups(ctx: Context): Promise<SecurityGroup[]> {
  return (await listSecurityGroups(ctx.store.read)).map(document)
}

function document(group: StoredSecurityGroup): SecurityGroup {
  return {
    id: group.id,
    metadata: { name: group.name, labels: group.labels, created_at: toRfc3339(group.created_at) },
    spec: { description: group.description, rules: group.rules },
    status: { instances: group.instances },
  }
}
