import {
  type Document,
  isCollection,
  isMap,
  isNode,
  isPair,
  isScalar,
  LineCounter,
  parseAllDocuments,
  type YAMLMap,
  type YAMLSeq,
} from 'yaml'
import { readInput } from '../command/arguments.ts'
import type { CliIo } from '../io.ts'
import { type DeclaredDocument, fault, isRecord, nameOf, tokensOf } from './declared-document.ts'

/** Bounds of what is read: bytes of a file and documents in it. */
const maxFileBytes = 1024 ** 2
const maxDocuments = 1000

/** Times the parser follows references: enough for shared labels, too few to grow a document into gigabytes. */
const maxAliases = 100

/** Bounds of a document with its references followed. The documents of the API have six levels. */
const maxDepth = 32
const maxValues = 100_000
const maxCharacters = 4 * 1024 ** 2

/**
 * The documents of a YAML or JSON file, or of standard input for "-". Empty ones are left out. Throws CliError (usage)
 * that names file and line: for what is no YAML, no object, too large, nested too deep, or grows by its aliases.
 */
export async function readDeclaredFile(io: CliIo, file: string): Promise<DeclaredDocument[]> {
  const text = (await readInput(io, file, maxFileBytes)).toString('utf8')
  return parseDeclared(text, nameOf(file))
}

/** The same of a text; `file` is what messages call it. */
export function parseDeclared(text: string, file: string): DeclaredDocument[] {
  const lines = new LineCounter()
  // the parser compares each key of a map with all others, which takes minutes for a large one; they are checked below
  const options = { lineCounter: lines, prettyErrors: false, uniqueKeys: false }
  const documents = refusing(file, () => parseAllDocuments(text, options))
  if (!Array.isArray(documents)) return []
  if (documents.length > maxDocuments) throw fault(file, `has more than ${maxDocuments} documents`)
  return documents.flatMap((document) => {
    const lineAt = (offset: number) => lines.linePos(offset).line
    const [problem] = [...document.errors, ...document.warnings]
    if (problem !== undefined) throw fault(`${file}:${lineAt(problem.pos[0])}`, plainMessage(problem.message))
    if (document.contents === null) return []
    const double = findDoubleKey(document)
    if (double !== null) throw fault(`${file}:${lineAt(double.offset)}`, `the field ${double.key} is there twice`)
    const value: unknown = refusing(file, () => document.toJS({ maxAliasCount: maxAliases }))
    if (value === null) return []
    const line = lineAt(document.contents.range?.[0] ?? 0)
    const excess = findExcess(value)
    if (excess !== null) throw fault(`${file}:${line}`, excess)
    if (!isRecord(value)) throw fault(`${file}:${line}`, 'is not an object with fields')
    return [{ file, line, value, lineOf: (pointer: string) => lineAt(offsetOf(document, pointer)) }]
  })
}

/** What the parser throws in place of telling: aliases that grow (ReferenceError), nesting beyond the stack (RangeError). */
function refusing<T>(file: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw fault(file, plainMessage(error instanceof Error ? error.message : String(error)))
  }
}

function plainMessage(message: string): string {
  if (message.includes('call stack')) return 'is nested too deep'
  if (message.includes('alias count')) return 'grows too much by its aliases'
  return message
}

/** Everything in a document that has items, without following its aliases. */
function* collectionsOf(document: Document.Parsed): Generator<YAMLMap | YAMLSeq> {
  const left: unknown[] = [document.contents]
  while (left.length > 0) {
    const node = left.pop()
    if (!isCollection(node)) continue
    yield node
    for (const item of node.items) left.push(isPair(item) ? item.value : item)
  }
}

function findDoubleKey(document: Document.Parsed): { key: string; offset: number } | null {
  for (const collection of collectionsOf(document)) {
    if (!isMap(collection)) continue
    const seen = new Set<string>()
    for (const { key } of collection.items) {
      const name = isScalar(key) ? String(key.value) : ''
      if (seen.has(name)) return { key: name, offset: isScalar(key) ? (key.range?.[0] ?? 0) : 0 }
      seen.add(name)
    }
  }
  return null
}

/** What is too much of a value, or null. One that contains itself is too deep. */
function findExcess(value: unknown): string | null {
  const left: { value: unknown; depth: number }[] = [{ value, depth: 1 }]
  let values = 0
  let characters = 0
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    const { value: at, depth } = next
    if (depth > maxDepth) return `is nested deeper than ${maxDepth} levels`
    values += 1
    if (typeof at === 'string') characters += at.length
    if (values > maxValues || characters > maxCharacters) return 'has too much in it'
    if (typeof at !== 'object' || at === null) continue
    for (const [key, child] of Object.entries(at)) {
      characters += key.length
      left.push({ value: child, depth: depth + 1 })
    }
  }
  return null
}

/** Where a pointer's key or item begins; of what is not there, where the nearest thing around it does. */
function offsetOf(document: Document.Parsed, pointer: string): number {
  let offset = document.contents?.range?.[0] ?? 0
  let node: unknown = document.contents
  for (const token of tokensOf(pointer)) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === token)
      if (!isNode(pair?.key)) return offset
      offset = pair.key.range?.[0] ?? offset
      node = pair.value
    } else if (isNode(node) && 'items' in node) {
      node = node.items[Number(token)]
      if (!isNode(node)) return offset
      offset = node.range?.[0] ?? offset
    } else return offset
  }
  return offset
}
