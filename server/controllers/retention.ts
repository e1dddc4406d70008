import { hasEnded, type OperationType, operationKinds } from '@berth/contract/operation-kinds.ts'
import type { Context } from '../context.ts'
import { resourceKinds } from '../domain/resource-kinds.ts'
import { deleteOldEvents, hasEventBefore } from '../store/events.ts'
import { listNewlySilentHosts, updateSilent } from '../store/hosts/hosts.ts'
import { deleteOldIdempotencyKeys, listOldIdempotencyKeys } from '../store/idempotency-keys.ts'
import { deleteOperations, getOperation, listOldOperations, listOverdueOperations } from '../store/operations.ts'
import type { ControllerPass } from './driver.ts'

const batchSize = 100

/** Rows of no more use that one commit removes: few enough that others do not wait long for it. */
const lotSize = 1000

/**
 * What time alone brings about: operations past their deadline end, hosts fall silent, tombstones and old operations are
 * removed.
 * Everything else follows from a report in the transaction that stores it (domain/instances/settlement.ts), and what time brings about for a kind of resource is in `resourceKinds`.
 */
export function retentionPass(ctx: Context): ControllerPass {
  const startedAt = ctx.now()
  return async () => {
    const silent = await noteSilentHosts(ctx, startedAt)
    const overdue = await expireOverdue(ctx)
    const end = performance.now() + ctx.settings.controllerPeriodMs / 2
    const tombstones = await sweep(end, () => removeTombstones(ctx))
    const operations = await sweep(end, () => removeOldOperations(ctx))
    const keys = await sweep(end, () => removeOldKeys(ctx))
    const events = await sweep(end, () => removeOldEvents(ctx))
    if (silent + overdue + tombstones + operations + keys + events === 0) return null
    return (
      `${silent} hosts fell silent, ended ${overdue} overdue operations, removed ${tombstones} tombstones, ${operations} old operations, ` +
      `${keys} idempotency keys and ${events} events`
    )
  }
}

/**
 * Remove lot after lot until one finds nothing, or this part of the pass is over: what is made in a period, however much,
 * must be removed in a period. Other writes go in between.
 */
async function sweep(endMs: number, removeLot: () => Promise<number>): Promise<number> {
  let removed = 0
  for (;;) {
    const lot = await removeLot()
    removed += lot
    if (lot === 0 || performance.now() >= endMs) return removed
  }
}

/**
 * Tell once of each host of which nothing was heard for so long that it counts as unreachable (`isReady` in
 * domain/hosts/hosts.ts); its next report tells that it is back. A server that has just started has not listened yet: hosts
 * get the same time again from its start, else every restart would tell of all of them.
 */
async function noteSilentHosts(ctx: Context, startedAt: number): Promise<number> {
  const heard = ctx.now() - ctx.settings.hostUnreachableMs
  if (heard < startedAt) return 0
  for (let told = 0; ; ) {
    if ((await listNewlySilentHosts(ctx.store.read, heard, 1)).length === 0) return told
    told += await ctx.store.writeMakingRoom(async (tx) => {
      const hosts = await listNewlySilentHosts(tx.db, heard, batchSize)
      for (const host of hosts) await updateSilent(tx, host)
      return hosts.length
    })
  }
}

async function expireOverdue(ctx: Context): Promise<number> {
  const overdue = await listOverdueOperations(ctx.store.read, ctx.now(), batchSize)
  for (const { id } of overdue) {
    await ctx.store.writeMakingRoom(async (tx) => {
      const operation = await getOperation(tx.db, id)
      if (hasEnded(operation.status)) return // it ended since it was listed
      await kindOf(operation).expire(tx, operation, ctx.now())
    })
  }
  return overdue.length
}

function kindOf({ type }: { type: OperationType }) {
  return resourceKinds[operationKinds[type].resource_type]
}

async function removeTombstones(ctx: Context): Promise<number> {
  let removed = 0
  for (const kind of Object.values(resourceKinds)) removed += await kind.removeTombstones(ctx)
  return removed
}

async function removeOldOperations(ctx: Context): Promise<number> {
  const ids = await listOldOperations(ctx.store.read, ctx.now() - ctx.settings.operationMs, lotSize)
  if (ids.length === 0) return 0 // an idle server writes nothing
  await ctx.store.writeMakingRoom((tx) => deleteOperations(tx, ids))
  return ids.length
}

async function removeOldKeys(ctx: Context): Promise<number> {
  const before = ctx.now() - ctx.settings.idempotencyKeyMs
  const keys = await listOldIdempotencyKeys(ctx.store.read, before, lotSize)
  if (keys.length === 0) return 0
  await ctx.store.writeMakingRoom((tx) => deleteOldIdempotencyKeys(tx, keys, before))
  return keys.length
}

async function removeOldEvents(ctx: Context): Promise<number> {
  const before = ctx.now() - ctx.settings.eventMs
  if (!(await hasEventBefore(ctx.store.read, before))) return 0
  return ctx.store.writeMakingRoom((tx) => deleteOldEvents(tx.db, before, lotSize))
}
