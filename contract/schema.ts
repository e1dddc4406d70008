import Type, { type Static, type TSchema } from 'typebox'

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
export const TimestampOrEmpty = Type.String({ maxLength: 40, description: 'RFC 3339 UTC, "" while unknown' })

/** A person's name for a resource: an RFC 1123 label. Not unique. */
export const Name = Type.String({
  pattern: '^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$',
  maxLength: 63,
  description: 'RFC 1123 label: a-z, 0-9 and -, at most 63 characters; not unique',
})

const labelText = '[A-Za-z0-9._/-]'

export const Labels = Type.Record(
  Type.String({ pattern: `^${labelText}{1,63}$` }),
  Type.String({ pattern: `^${labelText}{0,63}$`, maxLength: 63 }),
  { additionalProperties: false, maxProperties: 64, description: 'At most 64; keys and values of [A-Za-z0-9._/-]' },
)

export const MetadataInput = Type.Object(
  { name: Type.Optional(Name), labels: Type.Optional(Labels) },
  { additionalProperties: false },
)

export const Metadata = named(
  'Metadata',
  Type.Object(
    {
      name: Name,
      labels: Type.Record(Type.String(), Type.String()),
      created_at: Timestamp,
    },
    { additionalProperties: false },
  ),
)

/** Query of every list. */
export const listLimit = { default: 1000, maximum: 1000 } as const

/** An object that allows no field but the ones named. */
export const strict = { additionalProperties: false } as const
