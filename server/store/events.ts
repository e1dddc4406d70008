import { type Change, type EventDetail, eventType } from './change.ts'
import { insertRows, prepare } from './engine/prepared.ts'
import type { EventRow } from './schema.ts'
import type { Reader } from './transaction.ts'

/** An event as stored, in the order of the commits. */
export interface StoredEvent extends Omit<EventRow, 'detail' | 'sequence'> {
  sequence: number
  detail: EventDetail
}

/** Store the events of a transaction. */
export async function insertEvents(db: Reader, changes: readonly Change[], now: number): Promise<void> {
  const rows = changes.map((change) => ({
    at: now,
    type: eventType(change),
    resource_id: change.id,
    detail: JSON.stringify(change.detail ?? {}),
  }))
  await insertRows(db, 'events', rows)
}

const behind = prepare((db, place) =>
  db.selectFrom('events').selectAll().where('sequence', '>', place('after')).orderBy('sequence').limit(place('limit')),
)

/** Events behind a sequence number, oldest first. */
export async function listEvents(db: Reader, after: number, limit: number): Promise<StoredEvent[]> {
  const rows = await behind.all(db, { after, limit })
  return rows.map((row) => ({ ...row, detail: JSON.parse(row.detail) }))
}

/**
 * The events of one resource among so many behind a sequence number, oldest first, and the last of those that were looked
 * at; the same number when there is none behind it.
 */
export async function listEventsOf(
  db: Reader,
  resourceId: string,
  after: number,
  lookedAt: number,
): Promise<{ events: StoredEvent[]; last: number }> {
  const { last: newest } = await eventRange(db)
  const last = Math.max(after, Math.min(newest, after + lookedAt))
  const rows = await db
    .selectFrom('events')
    .selectAll()
    .where('sequence', '>', after)
    .where('sequence', '<=', last)
    .where('resource_id', '=', resourceId)
    .orderBy('sequence')
    .execute()
  return { events: rows.map((row) => ({ ...row, detail: JSON.parse(row.detail) })), last }
}

/** The first and the last sequence number that are kept; both 0 when there is none. */
export async function eventRange(db: Reader): Promise<{ first: number; last: number }> {
  const ends = await Promise.all(
    (['asc', 'desc'] as const).map((order) =>
      db.selectFrom('events').select('sequence').orderBy('sequence', order).limit(1).executeTakeFirst(),
    ),
  )
  return { first: ends[0]?.sequence ?? 0, last: ends[1]?.sequence ?? 0 }
}

/** Whether the oldest event that may go is older than a time, so that an idle server writes nothing. */
export async function hasEventBefore(db: Reader, before: number): Promise<boolean> {
  const oldest = await db.selectFrom('events').select('at').orderBy('sequence').limit(2).execute()
  return oldest.length === 2 && (oldest[0]?.at ?? before) < before
}

/** Remove the oldest events up to the first that is not older than a time; at most `limit`, never the newest. */
export async function deleteOldEvents(db: Reader, before: number, limit: number): Promise<number> {
  const oldest = await db.selectFrom('events').select(['sequence', 'at']).orderBy('sequence').limit(limit).execute()
  const kept = oldest.findIndex((event) => event.at >= before)
  const end = kept === -1 ? oldest.length : kept
  const { last: newest } = await eventRange(db)
  const last = oldest[end - 1]
  if (last === undefined) return 0
  const result = await db
    .deleteFrom('events')
    .where('sequence', '<=', last.sequence)
    .where('sequence', '<', newest)
    .executeTakeFirst()
  return Number(result.numDeletedRows)
}
