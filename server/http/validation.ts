import type { FieldError } from '@berth/contract/errors.ts'
import type { ErrorObject } from 'ajv/dist/2020.js'
import { ApiError, validationError } from '../api-error.ts'

/** The answer to a request that breaks its schema: 422 for the body, 400 for path and query. */
export function requestError(part: string | undefined, faults: readonly ErrorObject[]): ApiError {
  if (part === 'body') return validationError(bodyErrors(faults))
  const [code, what] = partErrors[part === 'params' || part === 'headers' ? part : 'querystring']
  const details = bodyErrors(faults).map((error) => `${error.pointer.slice(1) || what}: ${error.message}`)
  return new ApiError(code, details.join('; '))
}

const partErrors = {
  params: ['invalid_path', 'path'],
  headers: ['invalid_header', 'header'],
  querystring: ['invalid_query', 'query'],
} as const

/** Faults that are named in one answer. */
const mostErrors = 100

/** Ajv's faults as pointers to the very field, the duplicates of union branches left out. */
function bodyErrors(faults: readonly ErrorObject[]): FieldError[] {
  const seen = new Set<string>()
  const errors: FieldError[] = []
  for (const fault of faults.slice(0, 10 * mostErrors)) {
    if (errors.length === mostErrors) break
    if (fault.keyword === 'if' || fault.keyword === 'propertyNames') continue
    const error = fieldError(fault)
    const key = `${error.pointer}\0${error.message}`
    if (!seen.has(key)) errors.push(error)
    seen.add(key)
  }
  return errors
}

/** Names a caller made up are repeated only so far, characters. */
const longestName = 128

function fieldError(fault: ErrorObject): FieldError {
  const { keyword, params } = fault
  const instancePath = fault.instancePath.slice(0, 4 * longestName)
  switch (keyword) {
    case 'required':
      return { pointer: `${instancePath}/${escapePointer(String(params.missingProperty))}`, message: 'is required' }
    case 'additionalProperties': {
      const name = String(params.additionalProperty)
      return {
        pointer: `${instancePath}/${escapePointer(name.slice(0, longestName))}`,
        message: unknownField(name, knownFields(fault)),
      }
    }
    case 'enum':
      return { pointer: instancePath, message: `must be one of ${[params.allowedValues].flat().join(', ')}` }
    case 'pattern':
      return { pointer: instancePath, message: `must match ${String(params.pattern)}` }
    default:
      return { pointer: instancePath, message: fault.message ?? 'is not valid' }
  }
}

function knownFields(fault: ErrorObject): string[] {
  const properties: unknown = fault.parentSchema?.properties
  return typeof properties === 'object' && properties !== null ? Object.keys(properties) : []
}

function unknownField(name: string, known: readonly string[]): string {
  const shown = name.length > 64 ? `${name.slice(0, 64)}…` : name
  const nearest = known
    .map((field) => ({ field, distance: editDistance(name.slice(0, 64).toLowerCase(), field) }))
    .sort((a, b) => a.distance - b.distance)[0]
  if (nearest !== undefined && nearest.distance <= Math.max(2, nearest.field.length / 3)) {
    return `is not a known field; did you mean ${nearest.field}?`
  }
  return known.length === 0 ? `${shown} is not allowed here` : `is not a known field; known are ${known.join(', ')}`
}

/** Levenshtein distance; both texts are short. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const current = [i]
    for (let j = 1; j <= b.length; j++) {
      const substitute = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      current.push(Math.min(substitute, (previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1))
    }
    previous = current
  }
  return previous[b.length] ?? 0
}

function escapePointer(field: string): string {
  return field.replaceAll('~', '~0').replaceAll('/', '~1')
}
