import type { IdempotencyKeyRow } from './schema.ts'
import type { Reader, Transaction } from './transaction.ts'

/** The answer that is bound to an idempotency key, or null. */
export async function findIdempotencyKey(db: Reader, key: string): Promise<IdempotencyKeyRow | null> {
  return (await db.selectFrom('idempotency_keys').selectAll().where('key', '=', key).executeTakeFirst()) ?? null
}

export async function insertIdempotencyKey(tx: Transaction, row: IdempotencyKeyRow): Promise<void> {
  await tx.db.insertInto('idempotency_keys').values(row).execute()
}

/** Let a key go whose time is over, so that it can be bound anew. */
export async function deleteIdempotencyKey(tx: Transaction, key: string): Promise<void> {
  await tx.db.deleteFrom('idempotency_keys').where('key', '=', key).execute()
}

/** Keys that were bound before a time, oldest first. */
export async function listOldIdempotencyKeys(db: Reader, before: number, limit: number): Promise<string[]> {
  const rows = await db
    .selectFrom('idempotency_keys')
    .select('key')
    .where('created_at', '<', before)
    .orderBy('created_at')
    .limit(limit)
    .execute()
  return rows.map((row) => row.key)
}

/** Let keys go that were bound before a time; one that was bound anew since it was listed stays. */
export async function deleteOldIdempotencyKeys(
  tx: Transaction,
  keys: readonly string[],
  before: number,
): Promise<void> {
  await tx.db
    .deleteFrom('idempotency_keys')
    .where('key', 'in', [...keys])
    .where('created_at', '<', before)
    .execute()
}
