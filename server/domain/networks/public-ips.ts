import { newId } from '@berth/contract/ids.ts'
import { formatAddress } from '@berth/contract/networks/cidr.ts'
import type { PublicIp, PublicIpCreate, PublicIpPatch } from '@berth/contract/networks/public-ips.ts'
import { ApiError, inUse, validationError } from '../../api-error.ts'
import type { Context } from '../../context.ts'
import {
  findInstance,
  getInstance,
  type StoredInstance,
  stateOf,
  updatePublicAddress,
} from '../../store/instances/instances.ts'
import {
  deletePublicIp as deletePublicIpRow,
  findPublicIp,
  findPublicIpOfInstance,
  freePublicAddress,
  getPublicIp,
  insertPublicIp,
  listPublicIps,
  type StoredPublicIp,
  takePublicAddress,
  updatePublicIp,
} from '../../store/networks/public-ips.ts'
import { type Listed, mapListed, type Page, type ResourceFilter } from '../../store/resource-list.ts'
import type { Transaction } from '../../store/transaction.ts'
import { checkIfMatch, entityTag, type Versioned } from '../entity-tag.ts'
import { metadataDocument, patchedMetadata } from '../labels.ts'
import type { PublicPool } from './public-pools.ts'

/** `status.reason` of an instance that its subnet could give no address. */
const shortageReason = 'no_public_addresses'

/** Allocate an address of a pool, and attach it when an instance is named, in place of one that came with that. */
export async function createPublicIp(ctx: Context, tx: Transaction, body: PublicIpCreate): Promise<PublicIp> {
  const id = body.id ?? newId('pip', ctx.now())
  if ((await findPublicIp(tx.db, id)) !== null) {
    throw new ApiError('already_exists', `There is a public address ${id} already.`)
  }
  const { pool: poolName, instance_id: instanceId = '' } = body.spec ?? {}
  const pool = poolOf(ctx, poolName)
  const instance = instanceId === '' ? null : await attachable(ctx, tx, instanceId)
  const address = await takeAddressOf(tx, pool, id)
  await insertPublicIp(tx, {
    id,
    name: body.metadata?.name ?? id,
    labels: body.metadata?.labels ?? {},
    created_at: ctx.now(),
    pool: pool.name,
    address,
    instance_id: instance?.id ?? null,
    auto_assigned: 0,
  })
  if (instance !== null) await showOn(tx, instance, address)
  return document(await getPublicIp(tx.db, id))
}

export async function readPublicIp(ctx: Context, id: string): Promise<Versioned<PublicIp>> {
  return versioned(await getPublicIp(ctx.store.read, id))
}

export async function readPublicIps(
  ctx: Context,
  filter: ResourceFilter & { instance_id?: string; pool?: string },
  page: Page,
): Promise<Listed<PublicIp>> {
  return mapListed(await listPublicIps(ctx.store.read, filter, page), document)
}

/**
 * Change name and labels, attach an address, move it, or detach it. One that came with its instance is the caller's own
 * from then on, and one that came with the instance it is attached to is released.
 */
export async function patchPublicIp(
  ctx: Context,
  id: string,
  body: PublicIpPatch,
  ifMatch: string | undefined,
): Promise<Versioned<PublicIp>> {
  return ctx.store.write(async (tx) => {
    const publicIp = await getPublicIp(tx.db, id)
    checkIfMatch(ifMatch, publicIp)
    const metadata = patchedMetadata(publicIp, body.metadata)
    const before = publicIp.instance_id
    const after = body.spec?.instance_id === undefined ? before : body.spec.instance_id || null
    if (after === before) {
      return versioned(await updatePublicIp(tx, publicIp, metadata))
    }
    const instance = after === null ? null : await attachable(ctx, tx, after)
    if (before !== null) await showOn(tx, await getInstance(tx.db, before), '')
    const moved = await updatePublicIp(tx, publicIp, { ...metadata, instance_id: after, auto_assigned: 0 })
    if (instance !== null) await showOn(tx, instance, publicIp.address)
    return versioned(moved)
  })
}

/** Release an address that no instance has, or that came with the one that has it. */
export async function deletePublicIp(ctx: Context, id: string): Promise<void> {
  await ctx.store.writeMakingRoom(async (tx) => {
    const publicIp = await getPublicIp(tx.db, id)
    const { instance_id: holder } = publicIp
    if (holder !== null && publicIp.auto_assigned === 0) throw inUse(`Public address ${id}`, [holder])
    if (holder !== null) await showOn(tx, await getInstance(tx.db, holder), '')
    await release(tx, publicIp, ctx.now())
  })
}

/** An address that goes with the instance it was taken for. */
export interface AutoAssigned {
  /** "" when none was free. */
  address: string
  /** Why the instance has none, as `status.reason` and `status.message` say it; both "" when it has one. */
  shortage: Pick<StoredInstance, 'reason' | 'message'>
  /** Store its resource, once its instance is stored. */
  insert: () => Promise<void>
}

/**
 * Take an address of the first pool for an instance that is being created. Nobody asked for this one by name, so an
 * instance that finds none is made without it, and says so.
 */
export async function takeAutoAssigned(ctx: Context, tx: Transaction, instanceId: string): Promise<AutoAssigned> {
  const id = newId('pip', ctx.now())
  const [pool] = ctx.publicPools
  const number = pool === undefined ? null : await takePublicAddress(tx, id, pool.range)
  if (pool === undefined || number === null) {
    const message = pool === undefined ? noPool : poolIsFull(pool)
    tx.afterCommit(() => {
      ctx.metrics.publicAddressShortages.inc()
      ctx.log.warn({ instance_id: instanceId, pool: pool?.name ?? '' }, `made without a public address: ${message}`)
    })
    return { address: '', shortage: { reason: shortageReason, message }, insert: async () => undefined }
  }
  const address = formatAddress(number)
  const named = { id, name: id, labels: {}, created_at: ctx.now() }
  const insert = () =>
    insertPublicIp(tx, { ...named, pool: pool.name, address, instance_id: instanceId, auto_assigned: 1 })
  return { address, shortage: { reason: '', message: '' }, insert }
}

/**
 * Let go of the address of an instance that is gone: one that came with it is free again, another one stays allocated.
 * What the instance itself shows is the caller's to change.
 */
export async function letGoOfPublicIp(tx: Transaction, instanceId: string, now: number): Promise<void> {
  const publicIp = await findPublicIpOfInstance(tx.db, instanceId)
  if (publicIp === null) return
  if (publicIp.auto_assigned === 1) await release(tx, publicIp, now)
  else await updatePublicIp(tx, publicIp, { instance_id: null })
}

const noPool = 'This server has no pool of public addresses.'
const poolIsFull = ({ name, cidr }: PublicPool) => `Pool ${name} (${cidr}) has no free public address.`

/** The pool of a name, the first one unless named. Throws validation_failed, or no_public_addresses when there is none. */
function poolOf(ctx: Context, name: string | undefined): PublicPool {
  const pool = ctx.publicPools.find((candidate) => name === undefined || candidate.name === name)
  if (pool !== undefined) return pool
  if (name === undefined) throw new ApiError('no_public_addresses', noPool)
  const known = ctx.publicPools.map((candidate) => candidate.name).join(', ')
  const message = `there is no pool ${name}; ${known === '' ? 'this server has none' : `there are ${known}`}`
  throw validationError([{ pointer: '/spec/pool', message }])
}

async function takeAddressOf(tx: Transaction, pool: PublicPool, publicIpId: string): Promise<string> {
  const number = await takePublicAddress(tx, publicIpId, pool.range)
  if (number !== null) return formatAddress(number)
  throw new ApiError('no_public_addresses', poolIsFull(pool))
}

/**
 * The instance an address is to be attached to, which has none any more: one that came with it is released. Throws
 * validation_failed when it has another, and invalid_state once its deletion was asked for.
 */
async function attachable(ctx: Context, tx: Transaction, instanceId: string): Promise<StoredInstance> {
  const pointer = '/spec/instance_id'
  const instance = await findInstance(tx.db, instanceId)
  if (instance === null) throw validationError([{ pointer, message: `there is no instance ${instanceId}` }])
  if (instance.desired === 'deleted') {
    throw new ApiError('invalid_state', `Instance ${instanceId} is ${stateOf(instance)}; it can get no public address.`)
  }
  const other = await findPublicIpOfInstance(tx.db, instanceId)
  if (other === null) return instance
  if (other.auto_assigned === 1) {
    await release(tx, other, ctx.now())
    return instance
  }
  const message = `instance ${instanceId} has public address ${other.address} (${other.id}) already; detach that first`
  throw validationError([{ pointer, message }])
}

/** Have an instance reached by an address, "" for none, as soon as its host hears of it. */
async function showOn(tx: Transaction, instance: StoredInstance, address: string): Promise<void> {
  // what a subnet could not give is forgotten with the first address that comes
  const isSolved = address !== '' && instance.reason === shortageReason
  await updatePublicAddress(tx, instance, address, isSolved ? { reason: '', message: '' } : {})
}

async function release(tx: Transaction, publicIp: StoredPublicIp, now: number): Promise<void> {
  await deletePublicIpRow(tx, publicIp.id)
  await freePublicAddress(tx, publicIp.id, now)
}

function versioned(publicIp: StoredPublicIp): Versioned<PublicIp> {
  return { document: document(publicIp), etag: entityTag(publicIp) }
}

function document(publicIp: StoredPublicIp): PublicIp {
  return {
    id: publicIp.id,
    metadata: metadataDocument(publicIp),
    spec: { pool: publicIp.pool, instance_id: publicIp.instance_id ?? '' },
    status: { address: publicIp.address, auto_assigned: publicIp.auto_assigned === 1 },
  }
}
