import type { ObservedUsage } from '@berth/contract/instances/usage.ts'
import { prepare } from '../engine/prepared.ts'
import type { Reader, Transaction } from '../transaction.ts'

const upsert = prepare((db, place) =>
  db
    .insertInto('host_usage')
    .values({ host_id: place('host_id'), figures: place('figures') })
    .onConflict((c) => c.column('host_id').doUpdateSet((eb) => ({ figures: eb.ref('excluded.figures') }))),
)

/** Keep what the instances of a host used in place of what they used before. Nobody is woken by it. */
export async function updateHostUsage(
  tx: Transaction,
  hostId: string,
  figures: readonly ObservedUsage[],
): Promise<void> {
  await upsert.run(tx.db, { host_id: hostId, figures: JSON.stringify(figures) })
}

const ofHost = prepare((db, place) =>
  db.selectFrom('host_usage').select('figures').where('host_id', '=', place('host_id')),
)

/** What the instances of a host used when it last looked; empty before it did. */
export async function listUsageOfHost(db: Reader, hostId: string): Promise<ObservedUsage[]> {
  const row = await ofHost.first(db, { host_id: hostId })
  return row === undefined ? [] : JSON.parse(row.figures)
}
