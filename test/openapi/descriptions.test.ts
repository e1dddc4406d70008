import { type ErrorCode, errorCatalogue } from '@berth/contract/errors.ts'
import { describe, expect, test } from 'vitest'
import { type Operation, operations } from './document.ts'

/** A status with a code of the error catalogue, as descriptions speak of them: 409 `in_use`. */
const answer = /\b([45]\d\d) `([a-z_]+)`/g

describe.each(operations.map((operation) => ({ ...operation, name: `${operation.method} ${operation.path}` })))(
  '$name',
  (operation) => {
    test('says in whole sentences what it does; the summary alone says too little', () => {
      const how = 'give the route a `description` (routes of resources: about, aboutCreate, aboutChange, aboutDelete)'
      expect(operation.summary, 'the route has no summary').not.toBe('')
      expect(operation.description, how).toMatch(/^[A-Z0-9`].{20,}\.$/s)
      expect(operation.description.startsWith(operation.summary), how).toBe(false)
    })

    test('is described with no error that it does not answer', () => {
      const possible = new Set(codesOf(operation))
      for (const [, status, code] of operation.description.matchAll(answer)) {
        expect(errorCatalogue[code as ErrorCode]?.status, `no error is ${status} ${code}`).toBe(Number(status))
        expect(possible, `${code} is not in problems(…) of the route`).toContain(code)
      }
    })
  },
)

/** The codes that the document lists for an operation. */
function codesOf({ responses }: Operation): string[] {
  const bodies = Object.values(responses).map((response) => response.content?.['application/problem+json']?.schema)
  return bodies.flatMap((schema) => (schema?.allOf as ProblemSchema[] | undefined)?.[1]?.properties?.code?.enum ?? [])
}

interface ProblemSchema {
  properties?: { code?: { enum: string[] } }
}
