import type { FieldError } from '@berth/contract/errors.ts'
import { newId } from '@berth/contract/ids.ts'
import { networkFault } from '@berth/contract/networks/cidr.ts'
import type {
  SecurityGroup,
  SecurityGroupCreate,
  SecurityGroupPatch,
  SecurityGroupRule,
  SecurityGroupRuleInput,
} from '@berth/contract/networks/security-groups.ts'
import { ApiError, inUse, mostUsers, validationError } from '../../api-error.ts'
import type { Context } from '../../context.ts'
import {
  type CountedSecurityGroup,
  deleteSecurityGroup as deleteSecurityGroupRow,
  findSecurityGroup,
  getSecurityGroup,
  insertSecurityGroup,
  listGroupsThatName,
  listInstancesWithSecurityGroup,
  listKnownSecurityGroupIds,
  listSecurityGroups,
  updateSecurityGroup,
} from '../../store/networks/security-groups.ts'
import { type Listed, mapListed, type Page, type ResourceFilter } from '../../store/resource-list.ts'
import type { Reader, Transaction } from '../../store/transaction.ts'
import { checkIfMatch, entityTag, type Versioned } from '../entity-tag.ts'
import { metadataDocument, patchedMetadata } from '../labels.ts'

/** The group of instances that name none. */
export const defaultSecurityGroupId = 'sg-default'

/** Make the project's default group when it is not there: members reach each other, everything may go out. */
export async function ensureDefaultSecurityGroup(ctx: Context, tx: Transaction): Promise<void> {
  if ((await findSecurityGroup(tx.db, defaultSecurityGroupId)) !== null) return
  await insertSecurityGroup(tx, {
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

/** Faults for the groups that do not exist, with pointers into the body of an instance. */
export async function unknownSecurityGroups(db: Reader, ids: readonly string[]): Promise<FieldError[]> {
  const known = await listKnownSecurityGroupIds(db, ids)
  return ids.flatMap((id, index) =>
    known.has(id) ? [] : [{ pointer: `/spec/security_groups/${index}`, message: `there is no security group ${id}` }],
  )
}

/** Make a group; without rules it lets nothing in and nothing out. */
export async function createSecurityGroup(
  ctx: Context,
  tx: Transaction,
  body: SecurityGroupCreate,
): Promise<SecurityGroup> {
  const id = body.id ?? newId('sg', ctx.now())
  if ((await findSecurityGroup(tx.db, id)) !== null) {
    throw new ApiError('already_exists', `There is a security group ${id} already.`)
  }
  const rules = wholeRules(body.spec?.rules ?? [])
  await checkRules(tx.db, id, rules)
  await insertSecurityGroup(tx, {
    id,
    name: body.metadata?.name ?? id,
    labels: body.metadata?.labels ?? {},
    created_at: ctx.now(),
    description: body.spec?.description ?? '',
    rules,
  })
  return document(await getSecurityGroup(tx.db, id))
}

export async function readSecurityGroup(ctx: Context, id: string): Promise<Versioned<SecurityGroup>> {
  return versioned(await getSecurityGroup(ctx.store.read, id))
}

export async function readSecurityGroups(
  ctx: Context,
  filter: ResourceFilter,
  page: Page,
): Promise<Listed<SecurityGroup>> {
  return mapListed(await listSecurityGroups(ctx.store.read, filter, page), document)
}

/**
 * Change name, labels, description, or all rules at once. Hosts that have a member hear of new rules at once; there
 * they act on the next packet, also of connections that are open.
 */
export async function patchSecurityGroup(
  ctx: Context,
  id: string,
  body: SecurityGroupPatch,
  ifMatch: string | undefined,
): Promise<Versioned<SecurityGroup>> {
  return ctx.store.write(async (tx) => {
    const group = await getSecurityGroup(tx.db, id)
    checkIfMatch(ifMatch, group)
    const { description = group.description, rules: given } = body.spec ?? {}
    const rules = given === undefined ? group.rules : wholeRules(given)
    await checkRules(tx.db, id, rules)
    const values = { ...patchedMetadata(group, body.metadata), description, rules }
    return versioned(await updateSecurityGroup(tx, group, values))
  })
}

/** Remove a group that no live instance carries and no other group's rule names. */
export async function deleteSecurityGroup(ctx: Context, id: string): Promise<void> {
  await ctx.store.writeMakingRoom(async (tx) => {
    await getSecurityGroup(tx.db, id)
    const instances = await listInstancesWithSecurityGroup(tx.db, id, mostUsers + 1)
    const users = [...instances, ...(await listGroupsThatName(tx.db, id))]
    if (users.length > 0) throw inUse(`Security group ${id}`, users)
    await deleteSecurityGroupRow(tx, id)
  })
}

/** Rules with what a caller may leave out. */
function wholeRules(rules: readonly SecurityGroupRuleInput[]): SecurityGroupRule[] {
  return rules.map((rule) => ({ ...rule, description: rule.description ?? '' }))
}

/** Throws validation_failed for rules whose parts do not fit together or whose group does not exist. */
async function checkRules(db: Reader, ownId: string, rules: readonly SecurityGroupRule[]): Promise<void> {
  const named = rules.flatMap(({ remote }) => ('security_group' in remote ? [remote.security_group] : []))
  const known = await listKnownSecurityGroupIds(db, [...new Set(named)])
  const faults = rules.flatMap((rule, index) => {
    const pointer = `/spec/rules/${index}`
    const found = portFaults(rule).map((fault) => ({ ...fault, pointer: `${pointer}${fault.pointer}` }))
    const { remote } = rule
    if ('cidr' in remote) {
      const fault = networkFault(remote.cidr)
      if (fault !== null) found.push({ pointer: `${pointer}/remote/cidr`, message: fault })
    } else if (remote.security_group !== ownId && !known.has(remote.security_group)) {
      const message = `there is no security group ${remote.security_group}`
      found.push({ pointer: `${pointer}/remote/security_group`, message })
    }
    return found
  })
  if (faults.length > 0) throw validationError(faults)
}

/** Ports belong to tcp and udp, and are a range from low to high; one alone is itself. */
function portFaults({ protocol, port_from: from, port_to: to }: SecurityGroupRule): FieldError[] {
  if (from === undefined && to === undefined) return []
  if (protocol !== 'tcp' && protocol !== 'udp') {
    const pointer = from === undefined ? '/port_to' : '/port_from'
    return [{ pointer, message: `protocol ${protocol} has no ports` }]
  }
  if (from === undefined) return [{ pointer: '/port_from', message: 'is required when port_to is given' }]
  if (to !== undefined && to < from) return [{ pointer: '/port_to', message: `must be at least port_from, ${from}` }]
  return []
}

function versioned(group: CountedSecurityGroup): Versioned<SecurityGroup> {
  return { document: document(group), etag: entityTag(group) }
}

function document(group: CountedSecurityGroup): SecurityGroup {
  return {
    id: group.id,
    metadata: metadataDocument(group),
    spec: { description: group.description, rules: group.rules },
    status: { instances: group.instances },
  }
}
