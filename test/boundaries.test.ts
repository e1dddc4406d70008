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

const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '*.ts', '*.tsx'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter((file) => file.includes('/') && !isTest(file))

describe('import boundaries', () => {
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

/** The server's rooms from the top down: each may import those below it. What lies loose in server/ is for all of them. */
const serverLayers = ['routes', 'controllers', 'http', 'metrics', 'domain', 'feed', 'store']

/** The agent's rooms that know nothing of instances: what a host has, for all the others. */
const agentGround = ['sys']

describe('within a room', () => {
  test('no imports go in a circle', () => {
    expect(circles(new Map(files.map((file) => [file, importedFiles(file)])))).toEqual([])
  })

  test('a circle is found', () => {
    const graph = new Map([
      ['a', ['b']],
      ['b', ['c', 'd']],
      ['c', ['a']],
      ['d', []],
    ])
    expect(circles(graph)).toEqual([['a', 'b', 'c']])
  })

  test("the server's imports go down", () => {
    const layer = (file: string) => serverLayers.indexOf(/^server\/([a-z]+)\//.exec(file)?.[1] ?? '')
    const climbing = imports('server').filter(([from, to]) => {
      if (to === 'server/main.ts') return true
      return layer(from) !== -1 && layer(to) !== -1 && layer(to) < layer(from)
    })
    expect(climbing, serverLayers.join(' → ')).toEqual([])
  })

  test("the agent's ground imports nothing that stands on it", () => {
    const onGround = (file: string) => agentGround.some((room) => file.startsWith(`agent/${room}/`))
    expect(imports('agent').filter(([from, to]) => onGround(from) && !onGround(to))).toEqual([])
  })

  test('every room of the server has its place in the order', () => {
    const rooms = new Set(files.flatMap((file) => /^server\/([a-z]+)\//.exec(file)?.[1] ?? []))
    expect([...rooms].filter((room) => !serverLayers.includes(room))).toEqual([])
  })
})

describe('client commands', () => {
  // each of them takes longer to load than all else that a command needs
  const heavy = ['typebox', 'yaml', 'better-sqlite3', 'pino']

  test('load no schemas, no YAML and no database before they run', () => {
    const commands = importedFiles('cli/program.ts').filter((file) => /^cli\/(resources|apply|completion)\//.test(file))
    expect(commands.length).toBeGreaterThan(10)
    const why = 'a constant or function that a command needs stands in a module of the contract without schemas'
    expect(
      commands.flatMap((command) => waysTo(heavy, command)),
      why,
    ).toEqual([])
  })

  test('a way to what they shall not load is found', () => {
    expect(waysTo(['typebox'], 'contract/problem.ts')).toContain('contract/problem.ts imports typebox')
    expect(waysTo(['typebox'], 'contract/instances/bounds.ts')).toEqual([])
  })
})

/** Imports of these packages by a file, or by what is loaded with it; types are not loaded, nor what `import()` is for. */
function waysTo(packages: readonly string[], start: string): string[] {
  const loaded = new Set([start])
  const found: string[] = []
  for (const file of loaded) {
    const text = readFileSync(join(root, file), 'utf8')
    for (const [, specifier = ''] of text.matchAll(/^(?:import|export)\s+(?!type\s)[^'"()]*['"]([^'"]+)['"]/gm)) {
      if (packages.some((name) => specifier === name || specifier.startsWith(`${name}/`))) {
        found.push(`${file} imports ${specifier}`)
      }
      const path = pathOf(specifier, file)
      if (path !== '') loaded.add(path)
    }
  }
  return found
}

/** Each import of one file of a room by another of it. */
function imports(room: string): [from: string, to: string][] {
  const inside = files.filter((file) => file.startsWith(`${room}/`))
  return inside.flatMap((from) =>
    importedFiles(from)
      .filter((to) => to.startsWith(`${room}/`))
      .map((to): [string, string] => [from, to]),
  )
}

/** Files of the tree that import each other, directly or by way of others; Tarjan's strongly connected components. */
function circles(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const number = new Map<string, number>()
  const open: string[] = []
  const found: string[][] = []
  const visit = (file: string): number => {
    number.set(file, number.size)
    let low = number.size - 1
    open.push(file)
    for (const next of graph.get(file) ?? []) {
      if (!number.has(next)) low = Math.min(low, visit(next))
      else if (open.includes(next)) low = Math.min(low, number.get(next) ?? low)
    }
    if (low === number.get(file)) {
      const component = open.splice(open.indexOf(file))
      if (component.length > 1) found.push(component.sort())
    }
    return low
  }
  for (const file of graph.keys()) if (!number.has(file)) visit(file)
  return found
}

/** Where the imports of a file lead, within the tree. Those that load at run time only when asked for count as well. */
function importedFiles(file: string): string[] {
  return specifiers(file)
    .map((specifier) => pathOf(specifier, file))
    .filter((imported) => imported !== '')
}

/** The file that a specifier names, "" when it leaves the tree. */
function pathOf(specifier: string, file: string): string {
  if (specifier.startsWith('@berth/')) return specifier.slice('@berth/'.length)
  return specifier.startsWith('.') ? relative(root, join(root, dirname(file), specifier)) : ''
}

function specifiers(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8')
  return [...text.matchAll(/(?:from|import)\s*\(?\s*['"]([^'"]+)['"]/g)].map((match) => match[1] ?? '')
}

function importedRooms(file: string): string[] {
  return specifiers(file)
    .map((specifier) => roomOf(specifier, file))
    .filter((room) => room !== null)
}

/** The room a specifier leads to from a file, or null when it leaves the tree. */
function roomOf(specifier: string, file: string): string | null {
  const own = /^@berth\/([a-z]+)\//.exec(specifier)?.[1]
  if (own !== undefined) return own
  if (!specifier.startsWith('.')) return null
  return relative(root, join(root, dirname(file), specifier)).split('/')[0] ?? null
}
