import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, test } from 'vitest'

/*
 * What pages and comments point to is there: paths, links with their anchors, decision records, and the functions that a
 * table names beside the file they are in. So what is moved or renamed takes its pages along.
 */

const root = join(import.meta.dirname, '../..')

/** Paths that docs/add-an-endpoint.md speaks of and who follows it only makes: of its resource `things`, and of a volume. */
const placeholders: Readonly<Record<string, RegExp>> = {
  'docs/add-an-endpoint.md': /(?:^|\/)(?:subject\/|NNNN-)?things\.ts$|(?:^|\/)volumes(?:\.ts|\/|$)|^kind\.ts$/,
}

/** The names of code that go with them. */
const madeUp: Readonly<Record<string, RegExp>> = {
  'docs/add-an-endpoint.md': /[tT]hing|Volume/,
}

const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter((file) => file !== '' && existsSync(join(root, file)))
const folders = new Set(files.flatMap((file) => parents(file)))
const there = new Set([...files, ...folders])

/** Also by the end of their path, as a page says `seed.ts` where it is clear whose. */
const ends = new Set([...there].flatMap((path) => path.split('/').map((_part, at, parts) => parts.slice(at).join('/'))))

const rooms = [...folders].filter((folder) => !folder.includes('/'))
const sourceName = /[\w-]\.(?:ts|tsx|md|sh|py|pl)$/

/** A file of the tree in a command or in what one printed. */
const inCommand = new RegExp(`(?:^|[\\s'"(])(?:\\./)?((?:${rooms.join('|')})/[\\w/.-]+\\.(?:ts|sh|py|pl))\\b`, 'gm')

const pages = files.filter((file) => file.endsWith('.md'))
const texts = new Map(pages.map((page) => [page, readFileSync(join(root, page), 'utf8')]))
/** Every word of the sources, this file's own aside. */
const identifiers = new Set(
  files
    .filter((file) => /\.(?:ts|tsx|py|pl|sh|sql|json|yaml)$/.test(file) && file !== 'test/docs/paths.test.ts')
    .flatMap((file) => readFileSync(join(root, file), 'utf8').match(/\w+/g) ?? []),
)

const decisions = new Set(files.flatMap((file) => /^docs\/decisions\/(\d{4})-/.exec(file)?.[1] ?? []))

describe.each(pages)('%s', (page) => {
  const text = texts.get(page) ?? ''

  test('names files and folders that are there', () => {
    expect(missingPaths(page, text)).toEqual([])
  })

  test('links to pages and headings that are there', () => {
    expect(brokenLinks(page, text)).toEqual([])
  })

  test('names code that there is', () => {
    expect(unknownNames(page, text)).toEqual([])
  })

  test('names functions beside the files that have them', () => {
    expect(misplacedNames(text)).toEqual([])
  })
})

test('no two decision records have the same number', () => {
  const numbers = files.flatMap((file) => /^docs\/decisions\/(\d{4})-/.exec(file)?.[1] ?? [])
  expect(numbers.length).toBeGreaterThan(30)
  expect(numbers.filter((number, at) => numbers.indexOf(number) !== at)).toEqual([])
})

test('comments name files and decision records that are there', () => {
  const code = files.filter((file) => /\.(?:ts|tsx|py|sh|pl)$/.test(file) && file !== 'test/docs/paths.test.ts')
  const missing = code.flatMap((file) => {
    const comments = readFileSync(join(root, file), 'utf8').match(/^\s*(?:\/?\*|#).*|\s\/\/\s.*/gm) ?? []
    return missingInComments(comments.join('\n')).map((path) => `${file}: ${path}`)
  })
  expect(missing).toEqual([])
})

test('what is not there is found', () => {
  const text =
    'See `server/gone.ts`, `gone.ts`, `cli/gone/`, [a](gone.md), [b](api.md#gone), docs/decisions/9999 and `server/main.ts`.\n' +
    '| `server/main.ts` | `startServer`, `goneFunction` |'
  expect(missingPaths('docs/x.md', text)).toEqual(['server/gone.ts', 'gone.ts', 'cli/gone/', 'docs/decisions/9999'])
  expect(missingPaths('docs/x.md', '```sh\nnode ./server/gone.ts\n```')).toEqual(['server/gone.ts'])
  expect(missingInComments(' * as gone.ts has it (docs/gone.md, docs/decisions/9999; ours is main.ts)')).toEqual([
    'docs/decisions/9999',
    'gone.ts',
    'docs/gone.md',
  ])
  expect(brokenLinks('docs/x.md', text)).toEqual(['gone.md', 'api.md#gone'])
  expect(misplacedNames(text)).toEqual(['goneFunction'])
  expect(unknownNames('docs/x.md', 'It is `renderNothing` and `Store.#renderNothing`, once `startServer`.')).toEqual([
    'renderNothing',
    'Store.#renderNothing',
  ])
})

/** The words of a page that are paths of this tree, and are not there. */
function missingPaths(page: string, text: string): string[] {
  if (isReplaced(text)) return []
  const prose = text.replaceAll(/^```[\s\S]*?^```$/gm, '')
  const quoted = [...prose.matchAll(/`([^`\n]+)`/g)].flatMap(([, code = '']) => code.split(/[\s,()]+/))
  const words = [...new Set(quoted)].filter((word) => /^[\w.-]+(?:\/[\w.-]+)*\/?$/.test(word) && isPath(word))
  // of commands and what they print only what is called by its whole path
  const blocks = text.match(/^```[\s\S]*?^```$/gm)?.join('\n') ?? ''
  words.push(...[...blocks.matchAll(inCommand)].map(([, path = '']) => path))
  const missing = words.filter((word) => !isThere(word) && placeholders[page]?.test(word) !== true)
  return [...missing, ...missingRecords(text)]
}

/** Source files and decision records that comments name and that are not there; those of others have a path of theirs. */
function missingInComments(comments: string): string[] {
  const names = comments.match(/(?<![\w/.$*-])[a-z][\w./-]*\.(?:ts|tsx|md|py|pl|sh)\b/g) ?? []
  const ours = names.filter((name) => !name.includes('/') || rooms.some((room) => name.startsWith(`${room}/`)))
  return [...missingRecords(comments), ...ours.filter((name) => !isThere(name))]
}

function missingRecords(text: string): string[] {
  const named = [...text.matchAll(/docs\/decisions\/(\d{4})\b/g)]
  return named.filter(([, number = '']) => !decisions.has(number)).map(([path]) => path)
}

/** A decision record that holds no more speaks of what was. */
function isReplaced(text: string): boolean {
  return /^\*\*Replaced by \d{4}/m.test(text)
}

/** Whether a word begins in a room of the tree, or ends as one of its files. */
function isPath(word: string): boolean {
  return rooms.some((room) => word.startsWith(`${room}/`)) || sourceName.test(word)
}

function isThere(word: string): boolean {
  const path = word.replace(/\/$/, '')
  if (path.endsWith('.db')) return true // of a data directory
  if (rooms.some((room) => path.startsWith(`${room}/`))) return there.has(path)
  return ends.has(path)
}

/** Names of functions, types and fields, told by their capitals, that no source has. */
function unknownNames(page: string, text: string): string[] {
  if (isReplaced(text)) return []
  const names = [...text.matchAll(/`(#?[A-Za-z]\w*(?:\.#?\w+)*)(?:\(\))?`/g)].map(([, name = '']) => name)
  return names.filter((name) => {
    const parts = name.split(/\.?#|\./).filter((part) => /[a-z][A-Z]/.test(part))
    return parts.some((part) => !identifiers.has(part) && madeUp[page]?.test(part) !== true)
  })
}

/** The links of a page to files or headings that are not there. Those to other sites are not followed. */
function brokenLinks(page: string, text: string): string[] {
  const targets = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => target)
  return targets.filter((target) => {
    if (/^[a-z]+:/.test(target)) return false
    const [path = '', anchor] = target.split('#')
    const file = path === '' ? page : normalize(join(dirname(page), path))
    if (!there.has(file.replace(/\/$/, ''))) return true
    return anchor !== undefined && !headingsOf(texts.get(file) ?? '').includes(anchor)
  })
}

/** Anchors of a page as GitHub makes them of its headings. */
function headingsOf(text: string): string[] {
  return [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-'),
  )
}

/**
 * Names of code in the rows of tables that are in none of the files which the same row names by their whole paths. A row
 * without such a file says nothing of where a name is.
 */
function misplacedNames(text: string): string[] {
  return text.split('\n').flatMap((row) => {
    const cells = row.startsWith('|') ? row.split('|').map((cell) => [...cell.matchAll(/`([^`]+)`/g)]) : []
    const at = cells.findIndex((cell) => cell.length > 0 && cell.every(([, word]) => isSource(word)))
    const [fileCell = [], nameCell = []] = at < 0 ? [] : cells.slice(at)
    const sources = fileCell.map(([, word = '']) => word)
    const source = sources.map((file) => readFileSync(join(root, file), 'utf8')).join('\n')
    const names = nameCell.flatMap(([, word = '']) => (/^#?[A-Za-z]\w*(?:\.#?\w+)?$/.test(word) ? word.split('.') : []))
    return names.filter((name) => /[a-z][A-Z]|^[A-Z][a-z]|^#/.test(name) && !source.includes(name))
  })
}

function isSource(word: string | undefined): boolean {
  return word !== undefined && /\.tsx?$/.test(word) && files.includes(word)
}

/** The folders above a file: `a/b/c.ts` gives `a/b` and `a`. */
function parents(file: string): string[] {
  const parts = file.split('/').slice(0, -1)
  return parts.map((_part, at) => parts.slice(0, at + 1).join('/'))
}
