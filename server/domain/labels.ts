import { type MetadataPatch, maxLabels } from '@berth/contract/schema.ts'
import { toRfc3339 } from '@berth/contract/units.ts'
import { validationError } from '../api-error.ts'

/** Name and labels as a patch leaves them; what it does not name stays. Throws validation_failed. */
export function patchedMetadata(
  before: { name: string; labels: Record<string, string> },
  patch: MetadataPatch | undefined,
): { name: string; labels: Record<string, string> } {
  const labels = new Map(Object.entries(before.labels))
  for (const [key, value] of Object.entries(patch?.labels ?? {})) {
    if (value === null) labels.delete(key)
    else labels.set(key, value)
  }
  if (labels.size > maxLabels) {
    throw validationError([
      { pointer: '/metadata/labels', message: `would give ${labels.size} labels; at most ${maxLabels} are allowed` },
    ])
  }
  return { name: patch?.name ?? before.name, labels: Object.fromEntries(labels) }
}

/** The `metadata` of a document. */
export function metadataDocument(stored: {
  name: string
  labels: Record<string, string>
  created_at: number
  generation: number
}) {
  const { name, labels, created_at, generation } = stored
  return { name, labels, created_at: toRfc3339(created_at), generation }
}
