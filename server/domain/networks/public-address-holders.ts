import { newId } from '@berth/contract/ids.ts'
import { formatAddress } from '@berth/contract/networks/cidr.ts'
import { ApiError, validationError } from '../../api-error.ts'
import type { Context } from '../../context.ts'
import {
  findInstance,
  getInstance,
  type StoredInstance,
  stateOf,
  updatePublicAddress,
} from '../../store/instances/instances.ts'
import {
  deletePublicIp,
  findPublicIpOfInstance,
  freePublicAddress,
  insertPublicIp,
  type StoredPublicIp,
  takePublicAddress,
  updatePublicIp,
} from '../../store/networks/public-ips.ts'
import type { StoredSubnet } from '../../store/networks/subnets.ts'
import type { Transaction } from '../../store/transaction.ts'
import { noPool, poolIsFull } from './public-pools.ts'

/*
 * Which instance has which public address: the one place that changes it. Two rows say it, the address's `instance_id` and
 * the instance's `public_ip`, which it shows and its host hears; both change here, in one transaction.
 *
 *   assignToNew                an instance is made, with an address that its subnet gives, or with why that gives none
 *   receiverOf, holdPublicIp   an address is allocated, for an instance or for nobody yet
 *   movePublicIp               it goes from one instance to another, to the first one, or to nobody
 *   releasePublicIp            it goes back to its pool
 *   letGoOfPublicIp            its instance has ended
 */

/** `status.reason` of an instance that its subnet could give no address. */
const shortageReason = 'no_public_addresses'

/** What an instance that is made shows of its address, and what stores that address's resource once it is stored. */
export interface AssignedAddress {
  /** `public_ip` is "" when it has none; reason and message say why its subnet gave none, "" when that is no wonder. */
  shown: Pick<StoredInstance, 'public_ip' | 'reason' | 'message'>
  store: () => Promise<void>
}

/**
 * Take an address of the first pool for an instance that is being made in a subnet, if that gives any. Nobody asked for this
 * one by name, so an instance that finds none is made without it, and says so.
 */
export async function assignToNew(
  ctx: Context,
  tx: Transaction,
  instanceId: string,
  subnet: Pick<StoredSubnet, 'auto_assign_public_ip'>,
): Promise<AssignedAddress> {
  const without = (said = { reason: '', message: '' }) => ({
    shown: { public_ip: '', ...said },
    store: async () => undefined,
  })
  if (subnet.auto_assign_public_ip === 0) return without()
  const id = newId('pip', ctx.now())
  const [pool] = ctx.publicPools
  const number = pool === undefined ? null : await takePublicAddress(tx, id, pool.range)
  if (pool === undefined || number === null) {
    const message = pool === undefined ? noPool : poolIsFull(pool)
    tx.afterCommit(() => {
      ctx.metrics.publicAddressShortages.inc()
      ctx.log.warn({ instance_id: instanceId, pool: pool?.name ?? '' }, `made without a public address: ${message}`)
    })
    return without({ reason: shortageReason, message })
  }
  const address = formatAddress(number)
  const named = { id, name: id, labels: {}, created_at: ctx.now() }
  return {
    shown: { public_ip: address, reason: '', message: '' },
    store: () => insertPublicIp(tx, { ...named, pool: pool.name, address, instance_id: instanceId, auto_assigned: 1 }),
  }
}

/**
 * The instance that is to get an address, which has none any more: one that came with it is released. Throws
 * validation_failed when it has another, and invalid_state once its deletion was asked for.
 */
export async function receiverOf(ctx: Context, tx: Transaction, instanceId: string): Promise<StoredInstance> {
  const pointer = '/spec/instance_id'
  const instance = await findInstance(tx.db, instanceId)
  if (instance === null) throw validationError([{ pointer, message: `there is no instance ${instanceId}` }])
  if (instance.desired === 'deleted') {
    throw new ApiError('invalid_state', `Instance ${instanceId} is ${stateOf(instance)}; it can get no public address.`)
  }
  const other = await findPublicIpOfInstance(tx.db, instanceId)
  if (other === null) return instance
  if (other.auto_assigned === 1) {
    await free(tx, other, ctx.now())
    return instance
  }
  const message = `instance ${instanceId} has public address ${other.address} (${other.id}) already; detach that first`
  throw validationError([{ pointer, message }])
}

/** Store an address that was allocated, with its `receiver` or nobody (null). */
export async function holdPublicIp(
  tx: Transaction,
  allocated: Omit<StoredPublicIp, 'uid' | 'generation' | 'instance_id' | 'auto_assigned'>,
  receiver: StoredInstance | null,
): Promise<void> {
  await insertPublicIp(tx, { ...allocated, instance_id: receiver?.id ?? null, auto_assigned: 0 })
  if (receiver !== null) await showOn(tx, receiver, allocated.address)
}

/**
 * Have another instance than now have an address, or none (null), and change what else is given of it. It is the caller's
 * own from then on. Throws as `receiverOf` does. Gives the new version.
 */
export async function movePublicIp(
  ctx: Context,
  tx: Transaction,
  publicIp: StoredPublicIp,
  to: string | null,
  values: Partial<Pick<StoredPublicIp, 'name' | 'labels'>>,
): Promise<StoredPublicIp> {
  const receiver = to === null ? null : await receiverOf(ctx, tx, to)
  await takeFromHolder(tx, publicIp)
  const moved = await updatePublicIp(tx, publicIp, { ...values, instance_id: to, auto_assigned: 0 })
  if (receiver !== null) await showOn(tx, receiver, publicIp.address)
  return moved
}

/** Give an address back to its pool; an instance that has it has none from then on. */
export async function releasePublicIp(tx: Transaction, publicIp: StoredPublicIp, now: number): Promise<void> {
  await takeFromHolder(tx, publicIp)
  await free(tx, publicIp, now)
}

/**
 * Let go of the address of an instance that has ended: one that came with it is free again, another one stays allocated.
 * What the instance shows goes with its end (`updateTerminated`).
 */
export async function letGoOfPublicIp(tx: Transaction, instanceId: string, now: number): Promise<void> {
  const publicIp = await findPublicIpOfInstance(tx.db, instanceId)
  if (publicIp === null) return
  if (publicIp.auto_assigned === 1) await free(tx, publicIp, now)
  else await updatePublicIp(tx, publicIp, { instance_id: null })
}

async function takeFromHolder(tx: Transaction, { instance_id: holder }: StoredPublicIp): Promise<void> {
  if (holder !== null) await showOn(tx, await getInstance(tx.db, holder), '')
}

/** Have an instance reached by an address, "" for none, as soon as its host hears of it. */
async function showOn(tx: Transaction, instance: StoredInstance, address: string): Promise<void> {
  // what a subnet could not give is forgotten with the first address that comes
  const isSolved = address !== '' && instance.reason === shortageReason
  await updatePublicAddress(tx, instance, address, isSolved ? { reason: '', message: '' } : {})
}

async function free(tx: Transaction, publicIp: StoredPublicIp, now: number): Promise<void> {
  await deletePublicIp(tx, publicIp.id)
  await freePublicAddress(tx, publicIp.id, now)
}
