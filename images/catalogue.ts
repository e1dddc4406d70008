import { CatalogueImage } from '@berth/contract/images/images.ts'
import { Compile } from 'typebox/compile'
import { parseDocument } from 'yaml'

const schema = Compile(CatalogueImage)

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
    images.push(entry)
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
  const known = Object.keys(CatalogueImage.properties)
  const unknown = Object.keys(entry).filter((field) => !known.includes(field))
  const missing = CatalogueImage.required.filter((field) => !Object.hasOwn(entry, field))
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

function sourceProblems(image: CatalogueImage): string[] {
  const problems: string[] = []
  if (image.source_url === undefined && image.recipe === undefined) {
    problems.push('source_url: an image needs a source_url or a recipe')
  }
  if (image.source_url === undefined) {
    for (const field of ['sha256', 'checksum_url'] as const) {
      if (image[field] !== undefined) problems.push(`${field}: says nothing without a source_url`)
    }
  } else if (image.sha256 === undefined && image.checksum_url === undefined) {
    problems.push('source_url: a download needs a sha256 or a checksum_url')
  }
  return problems
}
