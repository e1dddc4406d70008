import type { OrphanList } from '@berth/contract/hosts/orphans.ts'
import { toRfc3339 } from '@berth/contract/units.ts'
import type { Context } from '../../context.ts'
import { checks, findOrphans, listHostOrphans } from '../../store/hosts/orphans.ts'
import type { Store } from '../../store/store.ts'

/** Orphans of one kind in the database that are told of at a time. */
const mostOfAKind = 100

/** How long after its time an idempotency key may still be there, milliseconds: the sweep takes its time, too. */
const sweepMs = 60_000

/** The look that is under way on a store. */
const running = new WeakMap<Store, Promise<OrphanList>>()

/**
 * What exists and nothing explains: in the database as it is now, and on each host as it last told. Empty unless
 * something went wrong. A look goes through whole tables: who asks while one is under way gets what that one finds.
 */
export function readOrphans(ctx: Context): Promise<OrphanList> {
  const { store } = ctx
  const look = running.get(store) ?? lookForOrphans(ctx).finally(() => running.delete(store))
  running.set(store, look)
  return look
}

async function lookForOrphans(ctx: Context): Promise<OrphanList> {
  const { read } = ctx.store
  const limits = { keysBefore: ctx.now() - ctx.settings.idempotencyKeyMs - sweepMs }
  const items: OrphanList['items'] = []
  for (const check of checks) items.push(...(await findOrphans(check, read, limits, mostOfAKind)))
  const looks = await listHostOrphans(read)
  for (const { host_id, orphans } of looks) items.push(...orphans.map((orphan) => ({ ...orphan, host_id })))
  const hosts = looks.map(({ host_id, looked_at: at }) => ({ host_id, looked_at: at === null ? '' : toRfc3339(at) }))
  return { items, hosts }
}
