import { type ErrorCode, errorCatalogue } from '@berth/contract/errors.ts'
import { Problem } from '@berth/contract/problem.ts'
import { ref } from '@berth/contract/schema.ts'
import type { FastifySchema } from 'fastify'
import Type, { type TSchema } from 'typebox'

/**
 * The responses for the errors that a route's own rules throw, keyed by status, for its schema. What the HTTP layer
 * answers by itself (`frameworkCodes`) need not be named.
 */
export function problems(...codes: ErrorCode[]): Record<number, TSchema> {
  const byStatus = Object.entries(Object.groupBy(codes, (code) => errorCatalogue[code].status))
  return Object.fromEntries(
    byStatus.map(([status, ofStatus]) => [status, Object.assign(ref(Problem), { codes: ofStatus })]),
  )
}

/** The codes that `problems` put into a route's responses. */
export function declaredCodes(responses: unknown): ErrorCode[] {
  return Object.values(responses ?? {}).flatMap((response: { codes?: ErrorCode[] }) => response.codes ?? [])
}

/** What any request can be answered with, whatever it asks for. */
const everywhere = [
  'invalid_query',
  'forbidden_origin',
  'uri_too_long',
  'header_too_large',
  'internal',
  'unavailable',
  'storage_full',
] as const satisfies ErrorCode[]

const methodsWithBody = ['POST', 'PUT', 'PATCH', 'DELETE']

/** The codes that the HTTP layer itself answers to a request for a route with this method and schema. */
export function frameworkCodes(method: string | readonly string[], schema: FastifySchema): ErrorCode[] {
  const codes: ErrorCode[] = [...everywhere]
  if (schema.params !== undefined) codes.push('invalid_path')
  if ([method].flat().some((each) => methodsWithBody.includes(each))) {
    // the body of a DELETE is read, too, though none is expected
    codes.push('invalid_json', 'body_too_large', 'unsupported_media_type', 'validation_failed')
  }
  if (schema.headers !== undefined) codes.push('invalid_header')
  return codes
}

/** An answer without a body. */
export const NoContent = Type.Null({ description: 'Done' })
