import { ApiError } from '../api-error.ts'

/** A document with the entity tag of its version. */
export interface Versioned<T> {
  document: T
  etag: string
}

/** What a version is told by: which resource it is of, also when another had its id, and how often that was changed. */
export interface Version {
  uid: string
  generation: number
  /** Changes that are none of the intent; of instances alone. */
  metadata_revision?: number
}

/** The entity tag of a version, in its quotes (docs/decisions/0025). */
export function entityTag({ uid, generation, metadata_revision: revision }: Version): string {
  return revision === undefined ? `"${uid}.${generation}"` : `"${uid}.${generation}.${revision}"`
}

/**
 * Refuse a change of a version that the caller does not know. `ifMatch` is the header as it came: `*`, or entity tags
 * with commas between them (RFC 9110, section 13.1.1); undefined asks for nothing. Throws precondition_failed.
 */
export function checkIfMatch(ifMatch: string | undefined, version: Version): void {
  if (ifMatch === undefined || ifMatch.trim() === '*') return
  const tags = ifMatch.split(',').map((tag) => tag.trim())
  const etag = entityTag(version)
  if (!tags.includes(etag)) {
    throw new ApiError('precondition_failed', `If-Match names another version; the ETag is ${etag} now. Read it again.`)
  }
}
