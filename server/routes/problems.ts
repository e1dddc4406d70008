import { type ErrorCode, errorCatalogue } from '@berth/contract/errors.ts'
import { Problem } from '@berth/contract/problem.ts'
import { ref } from '@berth/contract/schema.ts'
import Type, { type TSchema } from 'typebox'

/** The responses for the errors a route may answer, keyed by status, for its schema. */
export function problems(...codes: ErrorCode[]): Record<number, TSchema> {
  const always: ErrorCode[] = ['forbidden_origin', 'internal', 'unavailable', 'storage_full']
  const responses: Record<number, TSchema> = {}
  for (const code of [...codes, ...always]) {
    const { status, title } = errorCatalogue[code]
    const other = responses[status] === undefined ? '' : `${String(Reflect.get(responses[status], 'description'))}; `
    responses[status] = Object.assign(ref(Problem), {
      description: `${other}${code}: ${title}`,
    })
  }
  return responses
}

/** An answer without a body. */
export const NoContent = Type.Null({ description: 'Done' })
