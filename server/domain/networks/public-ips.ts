import { newId } from '@berth/contract/ids.ts'
import { formatAddress } from '@berth/contract/networks/cidr.ts'
import type { PublicIp, PublicIpCreate, PublicIpPatch } from '@berth/contract/networks/public-ips.ts'
import { ApiError, inUse, validationError } from '../../api-error.ts'
import type { Context } from '../../context.ts'
import {
  findPublicIp,
  getPublicIp,
  listPublicIps,
  type StoredPublicIp,
  takePublicAddress,
  updatePublicIp,
} from '../../store/networks/public-ips.ts'
import { type Listed, mapListed, type Page, type ResourceFilter } from '../../store/resource-list.ts'
import type { Transaction } from '../../store/transaction.ts'
import { checkIfMatch, entityTag, type Versioned } from '../entity-tag.ts'
import { metadataDocument, patchedMetadata } from '../labels.ts'
import { holdPublicIp, movePublicIp, receiverOf, releasePublicIp } from './public-address-holders.ts'
import { noPool, type PublicPool, poolIsFull } from './public-pools.ts'

/** Allocate an address of a pool, and attach it when an instance is named, in place of one that came with that. */
export async function createPublicIp(ctx: Context, tx: Transaction, body: PublicIpCreate): Promise<PublicIp> {
  const id = body.id ?? newId('pip', ctx.now())
  if ((await findPublicIp(tx.db, id)) !== null) {
    throw new ApiError('already_exists', `There is a public address ${id} already.`)
  }
  const { pool: poolName, instance_id: instanceId = '' } = body.spec ?? {}
  const pool = poolOf(ctx, poolName)
  const receiver = instanceId === '' ? null : await receiverOf(ctx, tx, instanceId)
  const address = await takeAddressOf(tx, pool, id)
  const named = { id, name: body.metadata?.name ?? id, labels: body.metadata?.labels ?? {}, created_at: ctx.now() }
  await holdPublicIp(tx, { ...named, pool: pool.name, address }, receiver)
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
    if (after === before) return versioned(await updatePublicIp(tx, publicIp, metadata))
    return versioned(await movePublicIp(ctx, tx, publicIp, after, metadata))
  })
}

/** Release an address that no instance has, or that came with the one that has it. */
export async function deletePublicIp(ctx: Context, id: string): Promise<void> {
  await ctx.store.writeMakingRoom(async (tx) => {
    const publicIp = await getPublicIp(tx.db, id)
    const { instance_id: holder } = publicIp
    if (holder !== null && publicIp.auto_assigned === 0) throw inUse(`Public address ${id}`, [holder])
    await releasePublicIp(tx, publicIp, ctx.now())
  })
}

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
