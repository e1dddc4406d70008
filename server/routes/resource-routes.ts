import { pathIdPattern } from '@berth/contract/ids.ts'
import { ref } from '@berth/contract/schema.ts'
import Type, { type TSchema } from 'typebox'
import type { Api } from './api.ts'
import { NoContent, problems } from './problems.ts'

/** Path parameter of a route to one resource. */
const IdParams = Type.Object({ id: Type.String({ pattern: pathIdPattern }) })

export interface ReadableResource<Item> {
  /** Path below /v1/, also the tag: `ssh-keys`. */
  plural: string
  /** Singular in operation ids: `SshKey`. */
  noun: string
  one: TSchema
  many: TSchema
  get: (id: string) => Promise<Item>
  list: () => Promise<Item[]>
}

/** The two routes every resource has: list and show. */
export function readRoutes<Item>(api: Api, resource: ReadableResource<Item>): void {
  const { plural, noun } = resource
  const words = plural.replaceAll('-', ' ')
  api.get(
    `/v1/${plural}`,
    {
      schema: {
        operationId: `list${noun}s`,
        summary: `List ${words}`,
        tags: [plural],
        response: { 200: ref(resource.many), ...problems() },
      },
    },
    async () => ({ items: await resource.list() }),
  )
  api.get(
    `/v1/${plural}/:id`,
    {
      schema: {
        operationId: `get${noun}`,
        summary: `Show one of the ${words}`,
        tags: [plural],
        params: IdParams,
        response: { 200: ref(resource.one), ...problems('invalid_path', 'not_found') },
      },
    },
    async (request) => resource.get(request.params.id),
  )
}

export interface OwnedResource<Input, Item> extends ReadableResource<Item> {
  /** With its article, for people: `an SSH key`. */
  aNoun: string
  body: TSchema
  create: (body: Input) => Promise<Item>
  remove: (id: string) => Promise<void>
}

/** The four routes of a resource that callers make and remove: list, show, create, delete. */
export function ownedRoutes<Input, Item extends { id: string }>(api: Api, resource: OwnedResource<Input, Item>): void {
  const { plural, noun, aNoun } = resource
  readRoutes(api, resource)
  api.post(
    `/v1/${plural}`,
    {
      schema: {
        operationId: `create${noun}`,
        summary: `Create ${aNoun}`,
        tags: [plural],
        body: ref(resource.body),
        response: {
          201: ref(resource.one),
          ...problems(
            'invalid_json',
            'already_exists',
            'body_too_large',
            'unsupported_media_type',
            'validation_failed',
          ),
        },
      },
    },
    async (request, reply) => {
      const created = await resource.create(request.body as Input) // checked with resource.body before
      return reply.code(201).header('location', `/v1/${plural}/${created.id}`).send(created)
    },
  )
  api.delete(
    `/v1/${plural}/:id`,
    {
      schema: {
        operationId: `delete${noun}`,
        summary: `Delete ${aNoun} that nothing uses`,
        tags: [plural],
        params: IdParams,
        response: { 204: NoContent, ...problems('invalid_path', 'not_found', 'in_use') },
      },
    },
    async (request, reply) => {
      await resource.remove(request.params.id)
      return reply.code(204).send(null)
    },
  )
}
