import { ApiError } from '../api-error.ts'

/**
 * Refuse a change of a version that the caller does not know. `ifMatch` is the header as it came: `*`, or entity tags
 * with commas between them (RFC 9110, section 13.1.1); undefined asks for nothing. Throws precondition_failed.
 */
export function checkIfMatch(ifMatch: string | undefined, etag: string): void {
  if (ifMatch === undefined || ifMatch.trim() === '*') return
  const tags = ifMatch.split(',').map((tag) => tag.trim())
  if (!tags.includes(etag)) {
    throw new ApiError('precondition_failed', `If-Match names another version; the ETag is ${etag} now. Read it again.`)
  }
}

/** The entity tag of a version, in its quotes. */
export function etagOf(...numbers: number[]): string {
  return `"${numbers.join('-')}"`
}
