import { oneOf } from '@berth/contract/schema.ts'
import type { TSchema } from 'typebox'

/** Header of a read that waited: how the wait ended. */
export const BerthWait = oneOf(['reached', 'timed-out', 'impossible'], {
  description: 'Only with wait_for: how the wait ended; impossible when it cannot come any more',
})

/**
 * The schema of a successful response with the headers that it may carry besides those of every response
 * (`server/openapi.ts`); for the document alone.
 */
export function withHeaders<S extends TSchema>(schema: S, headers: Record<string, TSchema>): S {
  return { ...schema, headers }
}
