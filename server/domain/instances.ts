import { randomBytes } from 'node:crypto'
import type { FieldError } from '@berth/contract/errors.ts'
import { newId } from '@berth/contract/ids.ts'
import { type InstanceAction, permittedActions } from '@berth/contract/instance-states.ts'
import {
  graceSeconds,
  type Instance,
  type InstanceCreate,
  type InstanceCreated,
  type PowerActionBody,
  type WaitTarget,
} from '@berth/contract/instances.ts'
import type { OperationType } from '@berth/contract/operations.ts'
import { ApiError, validationError } from '../api-error.ts'
import type { Context } from '../context.ts'
import { readConsole } from '../store/console-log.ts'
import { touchHost } from '../store/hosts.ts'
import {
  findInstance,
  getInstance,
  type InstanceIntent,
  insertInstance,
  listInstances,
  type StoredInstance,
  updateIntent,
  updateLatestOperation,
} from '../store/instances.ts'
import { findOperation, listOpenOperations, updateOperation } from '../store/operations.ts'
import { listKnownSecurityGroupIds } from '../store/security-groups.ts'
import { listSshKeysById } from '../store/ssh-keys.ts'
import type { Reader, Transaction } from '../store/store.ts'
import { takeAddress } from '../store/subnets.ts'
import { waitForChange } from '../waiting.ts'
import { addressAt } from './cidr.ts'
import { findKnownImage } from './images.ts'
import { createdDocument, instanceDocument, stateOf } from './instance-document.ts'
import { settleInstance } from './instance-lifecycle.ts'
import { resolveNetwork } from './network-placement.ts'
import { endOperation, openOperation } from './operations.ts'
import { defaultSecurityGroupId, ensureDefaultSecurityGroup } from './security-groups.ts'
import { userDataFault } from './user-data.ts'

/** Accept an instance: intent, address and operation are stored in one transaction before this returns. */
export async function createInstance(ctx: Context, body: InstanceCreate): Promise<InstanceCreated> {
  const instance = await ctx.store.write((tx) => insertNewInstance(ctx, tx, body))
  return createdDocument(instance)
}

async function insertNewInstance(ctx: Context, tx: Transaction, body: InstanceCreate): Promise<StoredInstance> {
  const now = ctx.now()
  const faults: FieldError[] = []
  const size = await resolveSize(ctx, tx.db, body, faults)
  await checkReferences(ctx, tx, body, faults)
  const subnet = await resolveNetwork(ctx, tx, body.spec, faults)
  if (faults.length > 0 || subnet === null || size === null) throw validationError(faults)

  const id = newId('inst', now)
  const address = await takeAddress(tx, subnet, id, (offset) => addressAt(subnet.cidr, offset))
  if (address === null) throw new ApiError('no_addresses', `Subnet ${subnet.id} (${subnet.cidr}) has no free address.`)
  const operation = await openOperation(ctx, tx, {
    type: 'instance.create',
    resourceId: id,
    generation: 1,
    graceSeconds: 0,
  })
  const instance: StoredInstance = {
    id,
    name: body.metadata?.name ?? id,
    labels: body.metadata?.labels ?? {},
    created_at: now,
    type: body.spec.type,
    image: body.spec.image,
    ...size,
    vpc_id: subnet.vpc_id,
    subnet_id: subnet.id,
    private_ip: address,
    mac: newMac(),
    security_groups: body.spec.security_groups ?? [defaultSecurityGroupId],
    ssh_key_ids: body.spec.ssh_key_ids ?? [],
    user_data: body.spec.user_data ?? '',
    desired: 'running',
    generation: 1,
    grace_seconds: graceSeconds.default,
    reboots: 0,
    reboot_grace_seconds: graceSeconds.default,
    host_id: null,
    scheduled_at: null,
    refusal: '',
    report: null,
    reason: '',
    message: '',
    terminated_at: null,
    operation_id: operation.id,
  }
  await insertInstance(tx, instance)
  return instance
}

async function resolveSize(ctx: Context, db: Reader, body: InstanceCreate, faults: FieldError[]) {
  const type = ctx.instanceTypes.get(body.spec.type)
  if (type === undefined) {
    const known = [...ctx.instanceTypes.keys()].join(', ')
    faults.push({ pointer: '/spec/type', message: `there is no instance type ${body.spec.type}; there are ${known}` })
  }
  const image = await findKnownImage(ctx, db, body.spec.image)
  if (image === null) {
    const message = `there is no image ${body.spec.image}; GET /v1/images lists those there are`
    faults.push({ pointer: '/spec/image', message })
  }
  if (type === undefined || image === null) return null
  const diskGb = body.spec.disk_gb ?? type.spec.disk_gb
  if (diskGb < image.min_disk_gb) {
    const whose = body.spec.disk_gb === undefined ? `the disk of type ${type.id}` : 'the disk'
    faults.push({
      pointer: '/spec/disk_gb',
      message: `${whose} has ${diskGb} GiB; image ${image.id} needs at least ${image.min_disk_gb}`,
    })
  }
  return {
    vcpus: body.spec.vcpus ?? type.spec.vcpus,
    memory_mb: body.spec.memory_mb ?? type.spec.memory_mb,
    disk_gb: diskGb,
  }
}

async function checkReferences(
  ctx: Context,
  tx: Transaction,
  body: InstanceCreate,
  faults: FieldError[],
): Promise<void> {
  const fault = userDataFault(body.spec.user_data ?? '')
  if (fault !== null) faults.push({ pointer: '/spec/user_data', message: fault })

  const keyIds = body.spec.ssh_key_ids ?? []
  const keys = await listSshKeysById(tx.db, keyIds)
  keyIds.forEach((id, index) => {
    if (!keys.has(id)) faults.push({ pointer: `/spec/ssh_key_ids/${index}`, message: `there is no SSH key ${id}` })
  })

  const groupIds = body.spec.security_groups
  if (groupIds === undefined || groupIds.includes(defaultSecurityGroupId)) await ensureDefaultSecurityGroup(ctx, tx)
  const groups = await listKnownSecurityGroupIds(tx.db, groupIds ?? [])
  groupIds?.forEach((id, index) => {
    const pointer = `/spec/security_groups/${index}`
    if (!groups.has(id)) faults.push({ pointer, message: `there is no security group ${id}` })
  })
}

/** A random, locally administered unicast MAC that cannot be the gateway's (02:00:00:00:00:01); unique by constraint. */
function newMac(): string {
  return [0x06, ...randomBytes(5)].map((byte) => byte.toString(16).padStart(2, '0')).join(':')
}

export interface InstanceQuery {
  limit: number
  after?: string
  name?: string
  state?: Instance['status']['state']
}

/** A page of instances in the order they were made; terminated ones only when asked for by state. */
export async function readInstances(ctx: Context, query: InstanceQuery): Promise<{ items: Instance[]; more: boolean }> {
  const { state, limit, ...filter } = query
  const items: Instance[] = []
  let after = filter.after
  for (;;) {
    const page = await listInstances(ctx.store.read, {
      ...filter,
      ...(after === undefined ? {} : { after }),
      limit: limit + 1,
      terminated: state === 'terminated',
    })
    for (const instance of page) {
      if (state !== undefined && stateOf(instance) !== state) continue
      if (items.length === limit) return { items, more: true }
      items.push(instanceDocument(instance))
    }
    const last = page.at(-1)
    if (last === undefined || page.length <= limit) return { items, more: false }
    after = last.id
  }
}

export type WaitOutcome = 'reached' | 'timed-out' | 'impossible'

/** The instance at once, or as soon as `target` holds, cannot come any more, or the time is over. */
export async function readInstance(
  ctx: Context,
  id: string,
  wait: { target: WaitTarget; timeoutSeconds: number } | null,
  signal: AbortSignal,
): Promise<{ instance: Instance; outcome: WaitOutcome | null }> {
  if (wait === null) return { instance: instanceDocument(await getInstance(ctx.store.read, id)), outcome: null }
  const last = await waitForChange(ctx.store, [id], {
    timeoutMs: wait.timeoutSeconds * 1000,
    signal,
    read: (db) => getInstance(db, id),
    done: (current) => waitOutcome(current, wait.target) !== null,
  })
  return { instance: instanceDocument(last), outcome: waitOutcome(last, wait.target) ?? 'timed-out' }
}

/** Whether a waiter can be answered: null while the target may still come. */
function waitOutcome(instance: StoredInstance, target: WaitTarget): 'reached' | 'impossible' | null {
  const state = stateOf(instance)
  const { report } = instance
  // what the host said before it saw this intent is about the boot before
  const current = report?.seen_generation === instance.generation && report.reboots >= instance.reboots
  const guest = report?.conditions.GuestReady?.status
  switch (target) {
    case 'terminated':
      return state === 'terminated' ? 'reached' : null
    case 'stopped':
      if (state === 'stopped') return 'reached'
      return instance.desired === 'deleted' ? 'impossible' : null
    case 'running':
      if (instance.desired !== 'running') return 'impossible'
      return state === 'running' && current ? 'reached' : null
    case 'ready':
      if (instance.desired !== 'running') return 'impossible'
      if (state !== 'running' || !current) return null
      if (guest === 'true') return 'reached'
      return guest === 'false' ? 'impossible' : null
  }
}

/** Ask that an instance runs, stops or boots anew. Gives the id of the operation to follow. */
export async function actOnInstance(
  ctx: Context,
  id: string,
  action: InstanceAction,
  body: PowerActionBody,
): Promise<string> {
  const grace = body.force === true ? 0 : (body.grace_seconds ?? graceSeconds.default)
  return ctx.store.write(async (tx) => {
    const instance = await getInstance(tx.db, id)
    const permitted: readonly InstanceAction[] = permittedActions[instance.desired]
    if (!permitted.includes(action)) {
      throw new ApiError('invalid_state', `Instance ${id} is ${stateOf(instance)}; it cannot ${action} now.`)
    }
    return changePower(ctx, tx, instance, intentOf(instance, action, grace), `instance.${action}`, grace)
  })
}

/** Ask that an instance and all it uses go away; possible in every state. Gives the id of the first deletion. */
export async function deleteInstance(ctx: Context, id: string, grace: number): Promise<string> {
  return ctx.store.write(async (tx) => {
    const instance = await getInstance(tx.db, id)
    const first = await findOperation(tx.db, id, 'instance.delete')
    if (first !== null) {
      const more = instance.terminated_at === null && instance.desired === 'deleted' && grace < instance.grace_seconds
      if (more) await shortenGrace(tx, instance, grace)
      return first.id
    }
    const intent: InstanceIntent =
      instance.desired === 'deleted' ? {} : { desired: 'deleted', grace_seconds: grace, reason: 'deleted', message: '' }
    return changePower(ctx, tx, instance, intent, 'instance.delete', grace)
  })
}

/** A second DELETE may be more urgent than the first. */
async function shortenGrace(tx: Transaction, instance: StoredInstance, grace: number): Promise<void> {
  const wanted = await updateIntent(tx, instance, { grace_seconds: grace })
  if (wanted.host_id !== null) await touchHost(tx, wanted.host_id)
}

function intentOf(instance: StoredInstance, action: InstanceAction, grace: number): InstanceIntent {
  switch (action) {
    case 'start':
      return instance.desired === 'running' ? {} : { desired: 'running', reason: '', message: '' }
    case 'stop':
      // a second stop is a new intent only when it is more urgent than the first
      return instance.desired === 'stopped' && grace >= instance.grace_seconds
        ? {}
        : { desired: 'stopped', grace_seconds: grace, reason: '', message: '' }
    case 'reboot':
      return { reboots: instance.reboots + 1, reboot_grace_seconds: grace }
  }
}

/** Store an intent with its operation; an empty intent asks for what is wanted already, or is done. */
async function changePower(
  ctx: Context,
  tx: Transaction,
  instance: StoredInstance,
  intent: InstanceIntent,
  type: OperationType,
  grace: number,
): Promise<string> {
  const now = ctx.now()
  const changes = Object.keys(intent).length > 0
  const generation = changes ? instance.generation + 1 : instance.generation
  if (!changes) {
    const [open] = await listOpenOperations(tx.db, instance.id)
    if (open !== undefined && instance.desired !== 'deleted') return open.id
  }
  const operation = await openOperation(ctx, tx, {
    type,
    resourceId: instance.id,
    generation,
    graceSeconds: type === 'instance.start' ? 0 : grace,
  })
  if (!changes) {
    await updateLatestOperation(tx, instance, operation.id)
    if (instance.terminated_at !== null || instance.desired !== 'deleted') {
      await updateOperation(tx, endOperation(operation, 'succeeded', now))
    }
    return operation.id
  }
  const wanted = await updateIntent(tx, instance, { ...intent, operation_id: operation.id })
  if (wanted.host_id !== null) await touchHost(tx, wanted.host_id)
  await settleInstance(tx, wanted, now)
  return operation.id
}

/** Serial output of an instance, as text; `tail` keeps the last lines. Not valid UTF-8 is replaced. */
export async function readConsoleLog(ctx: Context, id: string, tail: number | undefined): Promise<string> {
  if ((await findInstance(ctx.store.read, id)) === null) throw new ApiError('not_found', `There is no instance ${id}.`)
  const text = (await readConsole(ctx.store.read, id)).toString('utf8')
  if (tail === undefined) return text
  const lines = text.split('\n')
  const ended = lines.at(-1) === '' ? 1 : 0
  return lines.slice(-(tail + ended)).join('\n')
}
