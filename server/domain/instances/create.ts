import { type FieldError, failureCatalogue } from '@berth/contract/errors.ts'
import { newId } from '@berth/contract/ids.ts'
import { graceSeconds } from '@berth/contract/instances/bounds.ts'
import type { InstanceCreate, InstanceCreated, InstanceDryRun } from '@berth/contract/instances/instances.ts'
import { fewRandomBytes } from '@berth/contract/random.ts'
import { ApiError, validationError } from '../../api-error.ts'
import type { Context } from '../../context.ts'
import { insertInstance, type StoredInstance } from '../../store/instances/instances.ts'
import { listSshKeysById } from '../../store/instances/ssh-keys.ts'
import { takeAddress } from '../../store/networks/subnets.ts'
import type { Reader, Transaction } from '../../store/transaction.ts'
import { placementCandidates } from '../hosts/hosts.ts'
import { findKnownImage, needsUefi } from '../images/images.ts'
import { addressAt } from '../networks/address-plan.ts'
import { resolveNetwork } from '../networks/card-placement.ts'
import { assignToNew } from '../networks/public-address-holders.ts'
import {
  defaultSecurityGroupId,
  ensureDefaultSecurityGroup,
  unknownSecurityGroups,
} from '../networks/security-groups.ts'
import { openOperation } from '../operations.ts'
import { createdDocument } from './document.ts'
import { type Candidate, chooseHost, countRefusals, explainRefusals } from './placement.ts'
import { userDataFault } from './user-data.ts'

/** Accept an instance: intent, addresses and operation are stored in the one transaction of the caller. */
export async function createInstance(ctx: Context, tx: Transaction, body: InstanceCreate): Promise<InstanceCreated> {
  return createdDocument(await insertNewInstance(ctx, tx, body))
}

/** Do all that a create does, say what would come of it, and keep nothing. Throws what the create would throw. */
export async function dryRunInstance(ctx: Context, body: InstanceCreate): Promise<InstanceDryRun> {
  let outcome: InstanceDryRun | null = null
  const undo = new Error('a dry run keeps nothing')
  try {
    await ctx.store.write(async (tx) => {
      const instance = await insertNewInstance(ctx, tx, body)
      outcome = dryRunDocument(body, instance, await placementCandidates(ctx, tx.db))
      throw undo
    })
  } catch (error) {
    if (error !== undo || outcome === null) throw error
  }
  if (outcome === null) throw new TypeError('a dry run that ends without its error has no outcome')
  return outcome
}

function dryRunDocument(
  body: InstanceCreate,
  instance: StoredInstance,
  candidates: readonly Candidate[],
): InstanceDryRun {
  const host = chooseHost(candidates, instance)
  const { metadata, spec, status } = createdDocument(instance)
  return {
    id: '',
    metadata: { ...metadata, name: body.metadata?.name ?? '' },
    spec,
    status: { ...status, host_id: host?.id ?? '', private_ip: instance.private_ip, public_ip: instance.public_ip },
    operation_id: '',
    placement: {
      host_id: host?.id ?? '',
      hosts: candidates.length,
      refusals: countRefusals(candidates, instance),
      message: host === null ? explainRefusals(candidates, instance) : '',
    },
  }
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
  const publicIp = await assignToNew(ctx, tx, id, subnet)
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
    on_capacity: body.on_capacity ?? 'queue',
    on_panic: body.spec.on_panic ?? 'restart',
    metadata_revision: 0,
    host_id: null,
    scheduled_at: null,
    refusal: '',
    report: null,
    ...publicIp.shown,
    terminated_at: null,
    operation_id: operation.id,
  }
  await insertInstance(tx, instance)
  await publicIp.store()
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
  if (await needsUefi(db, image)) {
    throw new ApiError('image_needs_uefi', `Image ${image.id} boots by UEFI only. ${failureCatalogue.image_needs_uefi}`)
  }
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
  faults.push(...(await unknownSecurityGroups(tx.db, groupIds ?? [])))
}

/** A random, locally administered unicast MAC that cannot be the gateway's (02:00:00:00:00:01); unique by constraint. */
function newMac(): string {
  return [0x06, ...fewRandomBytes(5)].map((byte) => byte.toString(16).padStart(2, '0')).join(':')
}
