import type { OrphanList } from '@berth/contract/hosts/orphans.ts'
import { toRfc3339 } from '@berth/contract/units.ts'
import type { Context } from '../../context.ts'
import { checks, listHostOrphans } from '../../store/hosts/orphans.ts'

/** Orphans of one kind in the database that are told of at a time. */
const mostOfAKind = 100

/** How long after its time an idempotency key may still be there, milliseconds: the sweep takes its time, too. */
const sweepMs = 60_000

/**
 * What exists and nothing explains: in the database as it is now, and on each host as it last told. Empty unless
 * something went wrong.
 */
export async function readOrphans(ctx: Context): Promise<OrphanList> {
  const { read } = ctx.store
  const limits = { keysBefore: ctx.now() - ctx.settings.idempotencyKeyMs - sweepMs }
  const items: OrphanList['items'] = []
  for (const check of checks) items.push(...(await check(read, limits, mostOfAKind)))
  const looks = await listHostOrphans(read)
  for (const { host_id, orphans } of looks) items.push(...orphans.map((orphan) => ({ ...orphan, host_id })))
  const hosts = looks.map(({ host_id, looked_at: at }) => ({ host_id, looked_at: at === null ? '' : toRfc3339(at) }))
  return { items, hosts }
}
