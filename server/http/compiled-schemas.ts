import { SerializerSelector } from '@fastify/fast-json-stringify-compiler'
import { Ajv2020, type ErrorObject, type FuncKeywordDefinition } from 'ajv/dist/2020.js'
import type { FastifyInstance, FastifySchema } from 'fastify'

/** Words JSON Schema has no check for here. */
const formats = {
  'date-time': /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$/,
  ipv4: /^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$/,
}

type Validate = (value: unknown) => true | { error: ErrorObject[] }
type Serialize = (document: unknown) => string

/** What is compiled from schemas, by their texts: many routes have the same ones. */
interface Compiled {
  validator(part: string | undefined, schema: FastifySchema): Validate
  serializer(schema: unknown): Serialize
}

/** Servers of one process share what is compiled: it takes longer than all else of a start. */
const known = new WeakMap<readonly object[], Compiled>()

/**
 * Validate and serialise with the schemas as they stand: bodies strictly, nothing removed and nothing converted; queries and paths, which are always text,
 * with conversion to the type they should have. Each schema is compiled when a request first needs it: a server has hundreds, nearly all of them of
 * problems, and all of them together take a second and a half.
 */
export function useCompiledSchemas(app: FastifyInstance, named: readonly object[]): void {
  const compiled = known.get(named) ?? compilersOf(named)
  known.set(named, compiled)
  app.setValidatorCompiler<FastifySchema>(({ schema, httpPart }) => {
    let validate: Validate | null = null
    return (value: unknown) => {
      validate ??= compiled.validator(httpPart, schema)
      return validate(value)
    }
  })
  app.setSerializerCompiler(({ schema }) => {
    let serialize: Serialize | null = null
    return (document) => {
      serialize ??= compiled.serializer(schema)
      return serialize(document)
    }
  })
}

function compilersOf(named: readonly object[]): Compiled {
  // no schema is checked to be one: they are the contract's, and the linter of openapi.json reads them
  const fast = { validateSchema: false, strict: false } as const
  const common = { ...fast, removeAdditional: false, allErrors: true, verbose: true, formats } as const
  const strict = new Ajv2020({ ...common, coerceTypes: false })
  const coercing = new Ajv2020({ ...common, coerceTypes: true, useDefaults: true })
  for (const ajv of [strict, coercing]) {
    ajv.removeKeyword('uniqueItems').addKeyword(uniqueItems)
    for (const schema of named) ajv.addSchema(schema)
  }
  const compileSerializer = SerializerSelector()(
    Object.fromEntries(named.map((schema) => [Reflect.get(schema, '$id'), schema])),
  )
  const validators = new Map<string, Validate>()
  const serializers = new Map<string, Serialize>()
  return {
    validator(part, schema) {
      const kind = part === 'body' ? 'strict' : 'coercing'
      return of(validators, `${kind} ${JSON.stringify(schema)}`, () => {
        const validate = (kind === 'strict' ? strict : coercing).compile(schema)
        return (value) => validate(value) || { error: validate.errors ?? [] }
      })
    },
    serializer(schema) {
      const route = { method: '', url: '', httpStatus: '', schema } // it reads the schema alone
      return of(serializers, JSON.stringify(schema), () => compileSerializer(route))
    },
  }
}

function of<T>(made: Map<string, T>, key: string, make: () => T): T {
  const value = made.get(key) ?? make()
  made.set(key, value)
  return value
}

/** Ajv's own compares every item with every other: ten thousand of them would hold up everybody. */
const uniqueItems: FuncKeywordDefinition = {
  keyword: 'uniqueItems',
  type: 'array',
  schemaType: 'boolean',
  validate: (wanted: boolean, items: readonly unknown[]) =>
    !wanted || new Set(items.map((item) => JSON.stringify(item))).size === items.length,
  error: { message: 'must not have duplicate items' },
}
