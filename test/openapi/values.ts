import fc, { type Arbitrary } from 'fast-check'
import { namedSchemas, type Schema } from './document.ts'

/*
 * Values made from the schemas of openapi.json: such that fit, and such that miss by one fault. Ids of resources that
 * exist stand in them as tokens (`«/v1/vpcs:3»`), which are filled in when a request goes out: so a seed makes the same
 * requests again, whatever ids the server gave.
 */

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

/** Deepest nesting of generated values; a schema that contains itself ends there. */
const deepest = 8

/** Most items or extra keys that are generated where a schema sets no lower limit. */
const mostItems = 5

/** A token for the id of a resource of a collection (path of its list) that will exist by then. */
export function idToken(collection: string): Arbitrary<string> {
  return fc.nat({ max: 999 }).map((index) => `«${collection}:${index}»`)
}

/** Fill in the tokens of a text; `ids` gives the ids of a collection that exist. */
export function fillTokens(text: string, ids: (collection: string) => readonly string[]): string {
  return text.replaceAll(/«([^«»:]+):(\d+)»/g, (_token, collection: string, index: string) => {
    const known = ids(collection)
    return known[Number(index) % Math.max(1, known.length)] ?? 'none'
  })
}

/** Makes values for the schemas of one operation. */
export class ValueGenerator {
  readonly #collections: readonly string[]
  readonly #own: string | null

  /** `collections`: paths of all lists; `own`: the one whose resources the operation is about. */
  constructor(collections: readonly string[], own: string | null) {
    this.#collections = collections
    this.#own = own
  }

  /** Values that fit a schema, as far as the schema can tell. `name` is that of the field, for ids. */
  valid(schema: Schema, name = '', depth = 0): Arbitrary<Json> {
    const plain = flatten(schema)
    if (plain.const !== undefined) return fc.constant(plain.const as Json)
    if (Array.isArray(plain.enum)) return fc.constantFrom(...(plain.enum as Json[]))
    const union = plain.anyOf ?? plain.oneOf
    if (Array.isArray(union)) return fc.oneof(...union.map((each: Schema) => this.valid(each, name, depth)))
    const types = [plain.type ?? (plain.properties === undefined ? [] : 'object')].flat()
    const arbitraries = types.map((type) => this.#ofType(String(type), plain, name, depth))
    return arbitraries.length > 0 ? fc.oneof(...arbitraries) : anyJson
  }

  #ofType(type: string, schema: Schema, name: string, depth: number): Arbitrary<Json> {
    switch (type) {
      case 'null':
        return fc.constant(null)
      case 'boolean':
        return fc.boolean()
      case 'integer':
        return fc.integer(limits(schema))
      case 'number':
        return fc.double({ ...limits(schema), noNaN: true })
      case 'array':
        return this.#array(schema, name, depth)
      case 'object':
        return this.#object(schema, depth)
      default:
        return this.#string(schema, name)
    }
  }

  #array(schema: Schema, name: string, depth: number): Arbitrary<Json> {
    if (depth > deepest) return fc.constant([])
    const { minItems: minLength = 0, maxItems = Number.POSITIVE_INFINITY } = schema as Record<
      string,
      number | undefined
    >
    const bounds = { minLength, maxLength: Math.max(minLength, Math.min(maxItems, mostItems)) }
    const items = this.valid(Object(schema.items), name, depth + 1)
    return schema.uniqueItems === true
      ? fc.uniqueArray(items, { ...bounds, selector: (item) => JSON.stringify(item) })
      : fc.array(items, bounds)
  }

  #object(schema: Schema, depth: number): Arbitrary<Json> {
    if (depth > deepest) return fc.constant({})
    const fields = Object.entries(propertiesOf(schema))
    const required = requiredOf(schema)
    const optional = fields.map(([key]) => key).filter((key) => !required.includes(key))
    const made = Object.fromEntries(fields.map(([key, each]) => [key, this.valid(each, key, depth + 1)]))
    // often with little that is optional: the more there is, the more of it contradicts other parts
    const few = fc.subarray(optional, { maxLength: Math.min(2, optional.length) }).chain((keys) => {
      return fc.record(Object.fromEntries([...required, ...keys].map((key) => [key, made[key] ?? anyJson])))
    })
    const known = fc.oneof(fc.record(made, { requiredKeys: required }), few, few)
    const [pattern, extra] = Object.entries(Object(schema.patternProperties) as Record<string, Schema>)[0] ?? [
      undefined,
      schema.additionalProperties,
    ]
    if (typeof extra !== 'object' || extra === null) return known as Arbitrary<Json>
    const key = pattern === undefined ? fc.string({ minLength: 1 }) : fc.stringMatching(new RegExp(pattern))
    const others = fc.dictionary(key, this.valid(extra as Schema, '', depth + 1), { maxKeys: mostItems })
    return fc.tuple(others, known).map(([a, b]) => ({ ...a, ...b }) as Json)
  }

  #string(schema: Schema, name: string): Arbitrary<string> {
    const { minLength = 0, maxLength = 300, pattern, format, examples } = schema as StringSchema
    const fits = (text: string) => text.length >= minLength && text.length <= maxLength
    const choices: { weight: number; arbitrary: Arbitrary<string> }[] = []
    const collection = name === 'id' ? this.#own : collectionOf(name, this.#collections)
    if (collection !== null) choices.push({ weight: name === 'id' ? 1 : 30, arbitrary: idToken(collection) })
    if (examples !== undefined) choices.push({ weight: 10, arbitrary: fc.constantFrom(...examples) })
    if (format === 'date-time') choices.push({ weight: 2, arbitrary: dateTime })
    else if (format === 'ipv4') choices.push({ weight: 2, arbitrary: fc.ipV4() })
    else if (pattern !== undefined) {
      choices.push({ weight: 2, arbitrary: fc.stringMatching(new RegExp(pattern)).filter(fits) })
    } else {
      choices.push({ weight: 2, arbitrary: fc.string({ minLength, maxLength, unit: 'grapheme' }).filter(fits) })
      if (this.#collections.length > 0) {
        choices.push({ weight: 1, arbitrary: fc.constantFrom(...this.#collections).chain(idToken) })
      }
    }
    return fc.oneof(...choices)
  }

  /** Values that miss a schema by one fault: one node of a value that fits is replaced, removed or added to. */
  nearly(schema: Schema): Arbitrary<Json> {
    return fc.tuple(this.valid(schema), fc.nat(), fc.nat()).map(([value, where, what]) => {
      const nodes = [...nodesOf(value, flatten(schema), [])]
      const node = nodes[where % nodes.length]
      if (node === undefined) return null
      const faults = faultsOf(node.value, node.schema)
      return replaceAt(value, node.path, faults[what % faults.length] ?? null)
    })
  }
}

interface StringSchema {
  minLength?: number
  maxLength?: number
  pattern?: string
  format?: string
  examples?: string[]
}

const anyJson = fc.jsonValue().map((value) => JSON.parse(JSON.stringify(value)) as Json)

const dateTime = fc
  .date({ min: new Date('1970-01-01T00:00:00Z'), max: new Date('9999-12-31T23:59:59Z'), noInvalidDate: true })
  .map((date) => date.toISOString())

/** The schema behind references, with the parts of an allOf in one. */
function flatten(schema: Schema): Schema {
  if (typeof schema.$ref === 'string') {
    const named = namedSchemas[schema.$ref.split('/').at(-1) ?? '']
    if (named === undefined) throw new Error(`openapi.json has no schema ${schema.$ref}`)
    return flatten(named)
  }
  const parts = Array.isArray(schema.allOf) ? schema.allOf.map(flatten) : []
  if (parts.length === 0) return schema
  const properties = Object.assign({}, ...[...parts, schema].map((part) => part.properties ?? {}))
  return { ...Object.assign({}, ...parts), ...schema, allOf: undefined, properties }
}

function limits(schema: Schema): { min: number; max: number } {
  const { minimum = -1_000_000, maximum = 1_000_000 } = schema as Record<string, number | undefined>
  return { min: minimum, max: Math.max(minimum, maximum) }
}

function propertiesOf(schema: Schema): Record<string, Schema> {
  return Object(schema.properties)
}

function requiredOf(schema: Schema): string[] {
  const known = propertiesOf(schema)
  return Array.isArray(schema.required) ? schema.required.filter((key) => key in known) : []
}

/** The collection a field refers to by its name: `vpc_id` → `/v1/vpcs`, `type` → `/v1/instance-types`. */
function collectionOf(name: string, collections: readonly string[]): string | null {
  const words = name
    .replace(/_ids?$/, '')
    .replaceAll('_', '-')
    .replace(/s$/, '')
  if (words === '') return null
  return (
    collections.find((path) => path.endsWith(`/${words}s`)) ??
    collections.find((path) => path.endsWith(`-${words}s`)) ??
    null
  )
}

interface Node {
  path: readonly (string | number)[]
  value: Json
  schema: Schema
}

function* nodesOf(value: Json, schema: Schema, path: Node['path']): Generator<Node> {
  yield { path, value, schema }
  if (Array.isArray(value)) {
    for (const [i, item] of value.entries()) yield* nodesOf(item, flatten(Object(schema.items)), [...path, i])
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, item] of Object.entries(value)) {
      yield* nodesOf(item, flatten(propertiesOf(schema)[key] ?? {}), [...path, key])
    }
  }
}

/** Stands for a value that is to be left out. */
const absent = Symbol('absent')

function replaceAt(value: Json, path: Node['path'], fault: Json | typeof absent): Json {
  const [step, ...rest] = path
  if (step === undefined) return fault === absent ? null : fault
  if (Array.isArray(value)) {
    return value.flatMap((item, i) => (i !== step ? [item] : kept(rest, fault) ? [replaceAt(item, rest, fault)] : []))
  }
  const entries = Object.entries(Object(value) as Record<string, Json>)
  return Object.fromEntries(
    entries.flatMap(([key, item]) => {
      if (key !== step) return [[key, item]]
      return kept(rest, fault) ? [[key, replaceAt(item, rest, fault)]] : []
    }),
  )
}

function kept(rest: Node['path'], fault: Json | typeof absent): boolean {
  return rest.length > 0 || fault !== absent
}

/** Every way in which a value of this schema can be wrong by one step. */
function faultsOf(value: Json, schema: Schema): (Json | typeof absent)[] {
  const faults: (Json | typeof absent)[] = [absent, null, true, 1.5, [], {}, nested(200), [value], { value }]
  const { minimum, maximum, maxLength, minLength, maxItems } = schema as Record<string, number | undefined>
  if (typeof value === 'number') {
    faults.push((minimum ?? 0) - 1, (maximum ?? 1e9) + 1, String(value), -0.5, 2 ** 53, 1e300, -1e300)
  } else if (typeof value === 'string') {
    faults.push(0, '', value.slice(0, Math.max(0, (minLength ?? 1) - 1)), 'a'.repeat((maxLength ?? 70_000) + 1))
    faults.push(`${value}\n`, `${value} `, value.toUpperCase(), `${value}\0`, '\ud800', `${value}é`, '__proto__')
  } else if (Array.isArray(value)) {
    faults.push(
      [...value, ...value, value[0] ?? ''],
      Array.from({ length: (maxItems ?? 1000) + 1 }, () => value[0] ?? ''),
    )
    faults.push([...value, null], [[...value]], '')
  } else if (typeof value === 'object' && value !== null) {
    const [first = 'x'] = Object.keys(value)
    for (const key of [`${first}s`, 'frobnicate', '', 'constructor', '\ud800', 'a'.repeat(5000)]) {
      faults.push({ ...value, [key]: 1 })
    }
    faults.push(Object.fromEntries([...Object.entries(value), ['__proto__', { polluted: true }]]), '{}')
    faults.push(Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`k${i}`, 'v'])))
  }
  return faults
}

/** Arrays in arrays, so many levels deep. */
function nested(levels: number): Json {
  let value: Json = []
  for (let i = 0; i < levels; i++) value = [value]
  return value
}
