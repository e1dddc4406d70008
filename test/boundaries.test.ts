import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { describe, expect, test } from 'vitest'

const root = join(import.meta.dirname, '..')

/** What each room may import of the others; everything may import contract and itself. Tests see everything. */
const allowed: Record<string, readonly string[]> = {
  contract: [],
  server: [],
  agent: [],
  images: ['agent'],
  sdk: [],
  cli: ['sdk'],
  bin: ['server', 'agent', 'images', 'sdk', 'cli'],
  tools: ['server', 'images', 'bin'],
  bench: ['sdk', 'server', 'agent', 'bin'],
}

const isTest = (file: string) => /\.test\.ts$|\/testing\/|^test\//.test(file)

describe('import boundaries', () => {
  const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '*.ts', '*.tsx'], {
    cwd: root,
    encoding: 'utf8',
  })
    .split('\n')
    .filter((file) => file.includes('/') && !isTest(file))

  test('there are files to look at', () => {
    expect(files.length).toBeGreaterThan(50)
  })

  test.each(Object.keys(allowed))('%s imports only what it may', (room) => {
    const forbidden = files
      .filter((file) => file.startsWith(`${room}/`))
      .flatMap((file) => importedRooms(file).map((imported) => ({ file, imported })))
      .filter(({ imported }) => imported !== room && imported !== 'contract' && !allowed[room]?.includes(imported))
      .map(({ file, imported }) => `${file} imports ${imported}`)
    expect(forbidden, `allowed for ${room}: contract, ${allowed[room]?.join(', ')}`).toEqual([])
  })

  test('every room has a rule', () => {
    const rooms = new Set(files.map((file) => file.split('/')[0] ?? ''))
    expect([...rooms].filter((room) => !(room in allowed))).toEqual([])
  })

  test('a forbidden import is found', () => {
    expect(roomOf('@berth/server/main.ts', 'agent/x.ts')).toBe('server')
    expect(roomOf('../server/main.ts', 'agent/x.ts')).toBe('server')
    expect(roomOf('node:fs', 'agent/x.ts')).toBe(null)
  })
})

function importedRooms(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8')
  const specifiers = [...text.matchAll(/(?:from|import)\s*\(?\s*['"]([^'"]+)['"]/g)].map((match) => match[1] ?? '')
  return specifiers.map((specifier) => roomOf(specifier, file)).filter((room) => room !== null)
}

/** The room a specifier leads to from a file, or null when it leaves the tree. */
function roomOf(specifier: string, file: string): string | null {
  const own = /^@berth\/([a-z]+)\//.exec(specifier)?.[1]
  if (own !== undefined) return own
  if (!specifier.startsWith('.')) return null
  return relative(root, join(root, dirname(file), specifier)).split('/')[0] ?? null
}
