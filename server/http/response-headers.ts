import { oneOf } from '@berth/contract/schema.ts'
import Type, { type TSchema } from 'typebox'

/** Header of a read that waited: how the wait ended. */
export const BerthWait = oneOf(['reached', 'timed-out', 'impossible'], {
  description: 'Only with wait_for: how the wait ended; impossible when it cannot come any more',
})

/** Header of a document that says its generation: what If-Match takes. */
export const ETag = Type.String({ pattern: '^"[^"]+"$', description: 'Version of the document, for If-Match' })

/**
 * The schema of a successful response with the headers that it may carry besides those of every response
 * (`server/http/openapi.ts`); for the document alone.
 */
export function withHeaders<S extends TSchema>(schema: S, headers: Record<string, TSchema>): S {
  return { ...schema, headers }
}
