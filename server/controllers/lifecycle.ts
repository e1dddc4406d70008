import { hasEnded } from '@berth/contract/operations.ts'
import type { Context } from '../context.ts'
import { expireOperation } from '../domain/instance-lifecycle.ts'
import { deleteOldEvents, hasEventBefore } from '../store/events.ts'
import { deleteOldIdempotencyKeys, listOldIdempotencyKeys } from '../store/idempotency-keys.ts'
import { deleteInstance, findInstance, listExpiredInstances } from '../store/instances.ts'
import { deleteOperations, getOperation, listOldOperations, listOverdueOperations } from '../store/operations.ts'
import type { ControllerPass } from './driver.ts'

const batchSize = 100

/** Rows of no more use that one pass removes; the next one goes on. */
const sweepSize = 5000

/**
 * What time alone brings about: operations past their deadline end, tombstones and old operations are removed.
 * Everything else follows from a report in the transaction that stores it (domain/instance-lifecycle.ts).
 */
export function lifecyclePass(ctx: Context): ControllerPass {
  return async () => {
    const overdue = await expireOverdue(ctx)
    const tombstones = await removeTombstones(ctx)
    const operations = await removeOldOperations(ctx)
    const keys = await removeOldKeys(ctx)
    const events = await removeOldEvents(ctx)
    if (overdue + tombstones + operations + keys + events === 0) return null
    return (
      `ended ${overdue} overdue operations, removed ${tombstones} tombstones, ${operations} old operations, ` +
      `${keys} idempotency keys and ${events} events`
    )
  }
}

async function expireOverdue(ctx: Context): Promise<number> {
  const overdue = await listOverdueOperations(ctx.store.read, ctx.now(), batchSize)
  for (const { id } of overdue) {
    await ctx.store.write(async (tx) => {
      const operation = await getOperation(tx.db, id)
      if (hasEnded(operation.status)) return // it ended since it was listed
      await expireOperation(tx, await findInstance(tx.db, operation.resource_id), operation, ctx.now())
    })
  }
  return overdue.length
}

async function removeTombstones(ctx: Context): Promise<number> {
  const before = ctx.now() - ctx.settings.tombstoneMs
  const ids = await listExpiredInstances(ctx.store.read, before, batchSize)
  for (const id of ids) await ctx.store.write((tx) => deleteInstance(tx, id))
  return ids.length
}

async function removeOldOperations(ctx: Context): Promise<number> {
  const ids = await listOldOperations(ctx.store.read, ctx.now() - ctx.settings.operationMs, sweepSize)
  if (ids.length === 0) return 0 // an idle server writes nothing
  await ctx.store.write((tx) => deleteOperations(tx, ids))
  return ids.length
}

async function removeOldKeys(ctx: Context): Promise<number> {
  const before = ctx.now() - ctx.settings.idempotencyKeyMs
  const keys = await listOldIdempotencyKeys(ctx.store.read, before, sweepSize)
  if (keys.length === 0) return 0
  await ctx.store.write((tx) => deleteOldIdempotencyKeys(tx, keys, before))
  return keys.length
}

async function removeOldEvents(ctx: Context): Promise<number> {
  const before = ctx.now() - ctx.settings.eventMs
  if (!(await hasEventBefore(ctx.store.read, before))) return 0
  return ctx.store.write((tx) => deleteOldEvents(tx.db, before, sweepSize))
}
