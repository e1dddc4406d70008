import { createHash } from 'node:crypto'
import { pathIdPattern } from '@berth/contract/ids.ts'
import { ApiError } from '../../api-error.ts'

/** The key of every list is an id. A cursor is no secret: its key may be anybody's text. */
const idPattern = new RegExp(pathIdPattern)

/** An opaque cursor behind the last key of a page; it only goes with the filters it was made for. */
export function encodeCursor(lastKey: string, filter: object): string {
  return Buffer.from(JSON.stringify([lastKey, filterHash(filter)])).toString('base64url')
}

/** The key a cursor stands for. Throws invalid_query when it is broken or of another filter. */
export function decodeCursor(cursor: string, filter: object): string {
  let parsed: unknown
  try {
    parsed = JSON.parse(Buffer.from(cursor, 'base64url').toString())
  } catch {
    throw new ApiError('invalid_query', 'cursor: is not one that this server gave.')
  }
  const [key, hash] = Array.isArray(parsed) ? parsed : []
  if (typeof key !== 'string' || !idPattern.test(key) || hash !== filterHash(filter)) {
    throw new ApiError('invalid_query', 'cursor: belongs to a list with other filters.')
  }
  return key
}

function filterHash(filter: object): string {
  const sorted = Object.entries(filter).sort(([a], [b]) => (a < b ? -1 : 1))
  return createHash('sha256').update(JSON.stringify(sorted)).digest('base64url').slice(0, 12)
}
