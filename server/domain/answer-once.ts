import { createHash } from 'node:crypto'
import { ApiError } from '../api-error.ts'
import type { Context } from '../context.ts'
import { deleteIdempotencyKey, findIdempotencyKey, insertIdempotencyKey } from '../store/idempotency-keys.ts'
import type { WriteOptions } from '../store/store.ts'
import type { Transaction } from '../store/transaction.ts'

/** What a POST is answered with. */
export interface PostAnswer {
  status: number
  /** "" when the answer has no Location. */
  location: string
  body: object
}

/** A POST as it came. */
export interface PostRequest {
  /** Idempotency-Key, null when there is none. */
  key: string | null
  path: string
  body: unknown
}

/**
 * Do what a POST asks for, at most once for an idempotency key: the answer is stored in the transaction of the work, so
 * whoever repeats the request gets it, also after the process was killed between commit and answer, and also when both
 * came at the same moment. A refused request changes nothing, is not bound to its key and may be repeated.
 * Throws idempotency_key_reused when the key belongs to another request.
 */
export async function answerOnce(
  ctx: Context,
  request: PostRequest,
  work: (tx: Transaction) => Promise<PostAnswer>,
  options: WriteOptions = {},
): Promise<PostAnswer & { replayed: boolean }> {
  const { key } = request
  if (key === null) return { ...(await ctx.store.write(work, options)), replayed: false }
  const fingerprint = fingerprintOf(request)
  return ctx.store.write(async (tx) => {
    const bound = await findIdempotencyKey(tx.db, key)
    if (bound !== null && bound.created_at >= ctx.now() - ctx.settings.idempotencyKeyMs) {
      if (bound.fingerprint !== fingerprint) {
        throw new ApiError('idempotency_key_reused', 'This Idempotency-Key was used with another request.')
      }
      return { status: bound.status, location: bound.location, body: JSON.parse(bound.body), replayed: true }
    }
    if (bound !== null) await deleteIdempotencyKey(tx, key)
    const answer = await work(tx)
    const { status, location, body } = answer
    await insertIdempotencyKey(tx, {
      key,
      fingerprint,
      status,
      location,
      body: JSON.stringify(body),
      created_at: ctx.now(),
    })
    return { ...answer, replayed: false }
  }, options)
}

/** Of path and body. The order of an object's fields does not count: many clients have none (docs/decisions/0023). */
function fingerprintOf({ path, body }: PostRequest): string {
  return createHash('sha256')
    .update(JSON.stringify([path, body ?? null], sortFields))
    .digest('base64url')
}

/** For JSON.stringify: objects with their fields in one order. */
function sortFields(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
}
