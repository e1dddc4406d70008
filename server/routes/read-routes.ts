import { pathIdPattern } from '@berth/contract/ids.ts'
import { ref } from '@berth/contract/schema.ts'
import Type, { type TSchema } from 'typebox'
import type { Api } from './api.ts'
import { problems } from './problems.ts'

/** Path parameter of a route to one resource. */
export const IdParams = Type.Object({ id: Type.String({ pattern: pathIdPattern }) })

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
