/**
 * A description of an image, a desired image or a removal as this version writes it, of one that was stored when every
 * checksum was a SHA-256 without its algorithm. Anything else is given back as it is. Pure.
 */
export function upgradeChecksums(stored: unknown, kind: 'held' | 'desired' | 'removed'): unknown {
  if (typeof stored !== 'object' || stored === null) return stored
  const { registered_sha256: mark, ...rest } = { registered_sha256: undefined, ...stored }
  const upgraded = typeof mark === 'string' ? { ...rest, registered_checksum: `sha256:${mark}` } : rest
  if (kind !== 'desired') return upgraded
  const { sha256, ...desired } = { sha256: undefined, ...upgraded }
  return typeof sha256 === 'string' ? { ...desired, checksum: `sha256:${sha256}` } : desired
}
