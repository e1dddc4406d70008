import { type ParsedChecksum, parseChecksum, pathOf, sha256Of } from '@berth/contract/images/checksum.ts'
import { CatalogueImage } from '@berth/contract/images/images.ts'
import Type, { type Static } from 'typebox'
import { Compile } from 'typebox/compile'
import { parseDocument } from 'yaml'

/** An entry as it is written: its checksum in any form that a person has it in. */
const CatalogueEntry = Type.Object(
  { ...CatalogueImage.properties, sha256: Type.Optional(Type.String()), checksum: Type.Optional(Type.String()) },
  { additionalProperties: false },
)
type CatalogueEntry = Static<typeof CatalogueEntry>

const schema = Compile(CatalogueEntry)

/** A catalogue that cannot be used: every problem of the file, one a line. */
export class CatalogueError extends Error {
  readonly problems: readonly string[]

  constructor(fileName: string, problems: readonly string[]) {
    super(problems.map((problem) => `${fileName}: ${problem}`).join('\n'))
    this.name = 'CatalogueError'
    this.problems = problems
  }
}

/**
 * The entries of a catalogue of images, in the order of the file. Throws CatalogueError naming the file, the entry and
 * the field of everything that is wrong: broken YAML, an entry against the schema, an id given twice, an entry that
 * can be had from nowhere. Pure; `fileName` is only for messages.
 */
export function parseCatalogue(text: string, fileName: string): CatalogueImage[] {
  const document = parseDocument(text)
  if (document.errors.length > 0) {
    throw new CatalogueError(
      fileName,
      document.errors.map((error) => error.message.split('\n')[0]?.replace(/:$/, '') ?? error.code),
    )
  }
  const entries: unknown = document.toJS() ?? []
  if (!Array.isArray(entries)) throw new CatalogueError(fileName, ['the file must be a list of images'])
  const images: CatalogueImage[] = []
  const problems: string[] = []
  const places = new Map<string, number>()
  for (const [index, entry] of entries.entries()) {
    const place = describePlace(entry, index)
    if (!schema.Check(entry)) {
      problems.push(...schemaProblems(entry).map((problem) => `${place}: ${problem}`))
      continue
    }
    const earlier = places.get(entry.id)
    if (earlier !== undefined) problems.push(`${place}: the id is entry ${earlier}'s already`)
    else places.set(entry.id, index + 1)
    problems.push(...sourceProblems(entry).map((problem) => `${place}: ${problem}`))
    const { sha256, checksum: _, ...image } = entry
    const checksum = checksumOf(entry)
    if (checksum !== undefined && 'fault' in checksum) {
      problems.push(`${place}: ${sha256 === undefined ? 'checksum' : 'sha256'}: ${checksum.fault}`)
    } else images.push({ ...image, ...checksum })
  }
  if (problems.length > 0) throw new CatalogueError(fileName, problems)
  return images
}

function describePlace(entry: unknown, index: number): string {
  const id = typeof entry === 'object' && entry !== null && 'id' in entry ? entry.id : undefined
  return typeof id === 'string' ? `entry ${index + 1} (${id})` : `entry ${index + 1}`
}

function schemaProblems(entry: unknown): string[] {
  if (typeof entry !== 'object' || entry === null || Array.isArray(entry)) return ['must be a map of fields']
  const known = Object.keys(CatalogueEntry.properties)
  const unknown = Object.keys(entry).filter((field) => !known.includes(field))
  const missing = CatalogueEntry.required.filter((field) => !Object.hasOwn(entry, field))
  const invalid = new Map<string, string>()
  for (const error of schema.Errors(entry)) {
    const field = error.instancePath.split('/')[1]
    // A union reports each of its branches and then itself; the last says it best.
    if (field !== undefined && !unknown.includes(field)) invalid.set(field, error.message)
  }
  return [
    ...missing.map((field) => `${field}: is missing`),
    ...unknown.map((field) => `${field}: is not a field of an image (known: ${known.join(', ')})`),
    ...[...invalid].map(([field, message]) => `${field}: ${message}`),
  ]
}

/** The checksum of an entry in the stored form, undefined when it gives none. */
function checksumOf({ sha256, checksum, source_url: url }: CatalogueEntry): ParsedChecksum | undefined {
  const path = url !== undefined && URL.canParse(url) ? pathOf(url) : ''
  if (sha256 === undefined) return checksum === undefined ? undefined : parseChecksum(checksum, path)
  if (checksum !== undefined) return { fault: 'says the same as checksum; give one of them' }
  const parsed = parseChecksum(sha256, path)
  return 'checksum' in parsed && sha256Of(parsed.checksum) === ''
    ? { fault: 'is no SHA-256; name it checksum' }
    : parsed
}

function sourceProblems(image: CatalogueEntry): string[] {
  const problems: string[] = []
  if (image.source_url === undefined && image.recipe === undefined) {
    problems.push('source_url: an image needs a source_url or a recipe')
  }
  if (image.source_url === undefined) {
    for (const field of ['sha256', 'checksum', 'checksum_url'] as const) {
      if (image[field] !== undefined) problems.push(`${field}: says nothing without a source_url`)
    }
  } else if (image.sha256 === undefined && image.checksum === undefined && image.checksum_url === undefined) {
    problems.push('source_url: a download needs a checksum or a checksum_url')
  }
  return problems
}
