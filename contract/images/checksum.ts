/** The digests that files are published with. Longer is better where a file has both. */
const checksumAlgorithms = ['sha256', 'sha512'] as const
type ChecksumAlgorithm = (typeof checksumAlgorithms)[number]

/** Hexadecimal digits of each. */
const digits = { sha256: 64, sha512: 128 } as const

export interface ChecksumParts {
  algorithm: ChecksumAlgorithm
  /** Lower-case hexadecimal. */
  hex: string
}

/** The two parts of a checksum in that form. Pure. */
export function checksumParts(checksum: string): ChecksumParts {
  const [algorithm, hex = ''] = checksum.split(':')
  return { algorithm: algorithm === 'sha512' ? 'sha512' : 'sha256', hex }
}

/** The digits of a SHA-256, "" of another checksum or none. Pure. */
export function sha256Of(checksum: string | undefined): string {
  return checksum?.startsWith('sha256:') ? checksum.slice('sha256:'.length) : ''
}

/** A checksum in the stored form, or what is wrong with the text, to be put behind the name of the field. */
export type ParsedChecksum = { checksum: string } | { fault: string }

/**
 * Read what a person gives as the checksum of the file at `path` (of a URL, decoded): `sha512:…`, digits alone, one line
 * of a checksum file, whatever file that names, or more of it, of which the line for `path` counts. Pure.
 */
export function parseChecksum(text: string, path: string): ParsedChecksum {
  const lines = linesOf(text)
  const [only = '', ...others] = lines
  if (others.length > 0) return findChecksum(text, path)
  const entry = parseLine(only)
  return 'fault' in entry ? entry : { checksum: entry.checksum }
}

/**
 * Find the checksum of the file at `path` (of a URL, decoded) in the text of a checksum file: lines of sha256sum and
 * sha512sum (`<hex>  name`, `<hex> *name`), of BSD, Fedora and OpenSSL (`SHA256 (name) = <hex>`), or a file that is
 * nothing but one digest. Names may have folders (`./netboot/mini.iso`): the one that fits the path best counts, and the
 * longer digest of it. Other lines, such as those of a signature, are passed over. Pure.
 */
export function findChecksum(text: string, path: string): ParsedChecksum {
  const lines = linesOf(text)
  const entries = lines.map(parseLine).filter((entry) => 'checksum' in entry)
  const [first] = entries
  if (first?.name === null && lines.length === 1) return { checksum: first.checksum }
  const named = entries.filter((entry) => isNameOf(entry.name, path))
  const bestName = Math.max(...named.map(({ name }) => plainName(name).length))
  const best = named.filter(({ name }) => plainName(name).length === bestName).map(({ checksum }) => checksum)
  const longest = Math.max(...best.map((checksum) => checksum.length))
  const [only, ...others] = new Set(best.filter((checksum) => checksum.length === longest))
  const file = path.split('/').at(-1) ?? path
  if (only === undefined) return { fault: `names no SHA-256 or SHA-512 of ${file}` }
  return others.length === 0 ? { checksum: only } : { fault: `names different checksums of ${file}` }
}

function linesOf(text: string): string[] {
  return text
    .replace(/^\ufeff/, '')
    .split(/[\r\n]+/)
    .map((line) => line.trim())
    .filter((line) => line !== '')
}

interface Line {
  checksum: string
  /** The file that the line names, null when it names none. */
  name: string | null
}

const bsdLine = /^([a-z0-9/-]{2,16}) ?\((.+)\) ?= ?(\S+)$/i
const prefixed = /^([a-z][a-z0-9/-]{1,15})[:=]\s*(\S+)(?:\s+\*?(.+))?$/i
const coreutilsLine = /^(\\?)(\S+)(?:\s+\*?(.+))?$/

function parseLine(line: string): Line | { fault: string } {
  if (line === '') return { fault: 'is empty' }
  const bsd = bsdLine.exec(line)
  if (bsd !== null) return named(bsd[1], bsd[3], bsd[2])
  const withAlgorithm = prefixed.exec(line)
  if (withAlgorithm !== null) return named(withAlgorithm[1], withAlgorithm[2], withAlgorithm[3])
  const [, escaped, hex = '', name = null] = coreutilsLine.exec(line) ?? []
  const algorithm = checksumAlgorithms.find((each) => digits[each] === hex.length)
  const fault = digitsFault(hex, algorithm)
  if (fault !== null) return { fault }
  // coreutils marks a line whose name has a backslash or a line end with a backslash, and doubles those
  const plain = escaped === '' ? name : (name?.replaceAll('\\\\', '\\') ?? null)
  return { checksum: `${algorithm}:${hex.toLowerCase()}`, name: plain }
}

function named(written = '', hex = '', name: string | null = null): Line | { fault: string } {
  // SHA256, SHA-256, and SHA2-256 of OpenSSL 3; not SHA512/256, which is another digest of 64 digits
  const [, bits] = /^sha(?:2?-)?(256|512)$/i.exec(written) ?? []
  if (bits === undefined) return { fault: `names the algorithm ${written}; sha256 and sha512 are known` }
  const algorithm = bits === '256' ? 'sha256' : 'sha512'
  const fault = digitsFault(hex, algorithm)
  return fault === null ? { checksum: `${algorithm}:${hex.toLowerCase()}`, name } : { fault }
}

/** Digests that are often mistaken for those that are taken, by their digits. */
const otherDigests: Readonly<Record<number, string>> = { 32: 'MD5', 40: 'SHA-1', 56: 'SHA-224', 96: 'SHA-384' }

function digitsFault(hex: string, algorithm: ChecksumAlgorithm | undefined): string | null {
  const wrong = hex.search(/[^0-9a-f]/i)
  if (wrong === 0 || (wrong > 0 && wrong < 16)) {
    return 'is none of sha256:HEX, sha512:HEX, and a line of a checksum file such as SHA512SUMS'
  }
  if (wrong > 0) return `has a character that is no hexadecimal digit, in place ${wrong + 1}`
  const { length } = hex
  if (algorithm !== undefined && length === digits[algorithm]) return null
  if (algorithm !== undefined) return `has ${length} hexadecimal digits; ${algorithm} has ${digits[algorithm]}`
  const other = otherDigests[length]
  const known = 'sha256 has 64, sha512 has 128'
  return `has ${length} hexadecimal digits${other === undefined ? '' : `, as ${other}`}; ${known}`
}

function plainName(name: string | null): string {
  return (name ?? '').replace(/^(?:\.\/)+/, '')
}

function isNameOf(name: string | null, path: string): boolean {
  const plain = plainName(name)
  return plain !== '' && `/${path}`.endsWith(`/${plain}`)
}

/** The decoded path of a URL, which names in checksum files are compared with. Pure. */
export function pathOf(url: string): string {
  const { pathname } = new URL(url)
  try {
    return decodeURIComponent(pathname)
  } catch {
    return pathname
  }
}
