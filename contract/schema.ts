import Type, { type Static, type TSchema } from 'typebox'
import { labelKeyPattern, labelValuePattern } from './label-selector.ts'

/** A schema that stands in the OpenAPI document under a name of its own. */
export function named<S extends TSchema>(name: string, schema: S): S {
  return { ...schema, $id: name }
}

/** A reference to a named schema that keeps its static type (a plain `Type.Ref` would lose it). */
export function ref<S extends TSchema>(schema: S) {
  const id: unknown = Reflect.get(schema, '$id')
  if (typeof id !== 'string') throw new TypeError('only a named schema can be referred to')
  return Type.Unsafe<Static<S>>({ $ref: id })
}

/** One of a fixed list of strings. */
export function oneOf<const T extends string>(values: readonly T[], options: { description?: string } = {}) {
  return Type.Unsafe<T>({ type: 'string', enum: [...values], ...options })
}

/** RFC 3339 UTC. */
export const Timestamp = Type.String({ format: 'date-time' })

/** RFC 3339 UTC, or "" while it is not known. */
export const TimestampOrEmpty = Type.String({
  pattern: '^(\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d{3})?Z)?$',
  description: 'RFC 3339 UTC, "" while unknown',
})

/** An RFC 1123 label. */
export const namePattern = '^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$'

/** A person's name for a resource. Not unique. */
export const Name = Type.String({
  pattern: namePattern,
  maxLength: 63,
  description: 'RFC 1123 label: a-z, 0-9 and -, at most 63 characters; not unique',
})

/** Most labels of a resource. */
export const maxLabels = 64

export const Labels = Type.Record(
  Type.String({ pattern: labelKeyPattern }),
  Type.String({ pattern: labelValuePattern, maxLength: 63 }),
  {
    additionalProperties: false,
    maxProperties: maxLabels,
    description: 'At most 64; keys and values of [A-Za-z0-9._/-]',
    examples: [{ env: 'production', team: 'platform' }],
  },
)

export const MetadataInput = Type.Object(
  { name: Type.Optional(Name), labels: Type.Optional(Labels) },
  { additionalProperties: false },
)

/** Body of a PATCH: what is named is changed; a label that is null is removed (RFC 7396). */
export const MetadataPatch = Type.Object(
  {
    name: Type.Optional(Name),
    labels: Type.Optional(
      Type.Record(
        Type.String({ pattern: labelKeyPattern }),
        Type.Union([Type.String({ pattern: labelValuePattern, maxLength: 63 }), Type.Null()]),
        { additionalProperties: false, maxProperties: 128, description: 'Labels to set; null removes one' },
      ),
    ),
  },
  { additionalProperties: false },
)
export type MetadataPatch = Static<typeof MetadataPatch>

export const Metadata = named(
  'Metadata',
  Type.Object(
    {
      name: Name,
      labels: Type.Record(Type.String(), Type.String()),
      created_at: Timestamp,
      generation: Type.Integer({ minimum: 1, description: 'Rises with every change of what is wanted' }),
    },
    { additionalProperties: false },
  ),
)

/** An object that allows no field but the ones named. */
export const strict = { additionalProperties: false } as const

/** Text that goes as it is into a column or a comparison: PostgreSQL has no NUL in texts. */
export const textPattern = '^[^\\u0000]*$'

/** A value that a list is narrowed to; any that no resource has gives an empty list. */
export const FilterText = Type.String({ maxLength: 63, pattern: textPattern })

/** Parameters of every list. */
export const listQuery = {
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, default: 1000, description: 'Most items of a page' })),
  cursor: Type.Optional(Type.String({ maxLength: 512, description: 'next_cursor of the page before' })),
} as const

/** Parameters of the lists of resources with metadata. */
export const resourceListQuery = {
  ...listQuery,
  name: Type.Optional(FilterText),
  label_selector: Type.Optional(
    Type.String({ maxLength: 4096, description: 'Kubernetes syntax: a=b,c!=d,e in (x,y),f notin (z),g,!h' }),
  ),
} as const

export const ResourceListQuery = Type.Object(resourceListQuery, strict)

/** A page of a list; `next_cursor` is there only when there is more. */
export function pageOf<S extends TSchema>(item: S) {
  return Type.Object({ items: Type.Array(ref(item)), next_cursor: Type.Optional(Type.String()) }, strict)
}

/** Headers of a POST. A key is any text of visible ASCII characters that the caller makes up, best a random one. */
export const IdempotencyHeaders = Type.Object({
  'idempotency-key': Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 255,
      pattern: '^[!-~]+$',
      description: 'The same key with the same request gives the first answer again, for 24 hours',
    }),
  ),
})

/** Headers of a PATCH. */
export const PreconditionHeaders = Type.Object({
  'if-match': Type.Optional(
    Type.String({ maxLength: 1024, description: 'ETag of the version that is changed; another version is 412' }),
  ),
})
