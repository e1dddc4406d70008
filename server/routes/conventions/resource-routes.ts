import type { ErrorCode } from '@berth/contract/errors.ts'
import { pathIdPattern } from '@berth/contract/ids.ts'
import {
  IdempotencyHeaders,
  listQuery,
  PreconditionHeaders,
  ResourceListQuery,
  ref,
  strict,
} from '@berth/contract/schema.ts'
import Type, { type Static, type TSchema } from 'typebox'
import type { Context } from '../../context.ts'
import type { Versioned } from '../../domain/entity-tag.ts'
import type { Api } from '../../http/api.ts'
import { NoContent, problems } from '../../http/problems.ts'
import { ETag, withHeaders } from '../../http/response-headers.ts'
import type { Listed, Page } from '../../store/resource-list.ts'
import type { Transaction } from '../../store/transaction.ts'
import { keyRule, pagesRule, patchRule } from './descriptions.ts'
import { answerPage } from './list-page.ts'
import { answerPost, postProblems } from './posts.ts'

/** Path parameter of a route to one resource. */
const IdParams = Type.Object({ id: Type.String({ pattern: pathIdPattern }) })

/** What the query of a list says besides the page. */
export type ListFilter = Omit<Static<typeof ResourceListQuery>, 'limit' | 'cursor'>

export interface ReadableResource<Item, Filter = ListFilter> {
  /** Path below /v1/, also the tag: `ssh-keys`. */
  plural: string
  /** Singular in operation ids: `SshKey`. */
  noun: string
  /** For the OpenAPI document, in whole sentences: what one is, and what its document says that its schema does not. */
  about: string
  one: TSchema
  many: TSchema
  /** Query of the list; ResourceListQuery unless given. */
  query?: TSchema
  /** The etag is null of what nobody can change. */
  get: (id: string) => Promise<Versioned<Item> | { document: Item; etag: null }>
  list: (filter: Filter, page: Page) => Promise<Listed<Item>>
}

/** Of the DELETE of what is gone at once. */
const repeatedDelete = 'Answered with 204 it is gone; a second DELETE is 404 `not_found`.'

/** Query of the lists that only have pages. */
export const PageQuery = Type.Object(listQuery, strict)

/** A page of a list that is in memory as a whole, by id; goes on also behind an id that is gone by now. */
export function pageInMemory<Item extends { id: string }>(
  items: readonly Item[],
  { after = '', limit }: Page,
): Listed<Item> {
  const byId = items.toSorted((a, b) => (a.id < b.id ? -1 : 1))
  return { items: byId.filter(({ id }) => id > after).slice(0, limit), behind: null }
}

/** The two routes every resource has: list and show. */
export function readRoutes<Item extends { id: string }, Filter = ListFilter>(
  api: Api,
  resource: ReadableResource<Item, Filter>,
): void {
  const { plural, noun, about } = resource
  const words = plural.replaceAll('-', ' ')
  api.get(
    `/v1/${plural}`,
    {
      schema: {
        operationId: `list${noun}s`,
        summary: `List ${words} in the order of their ids`,
        description: `${about}\n\n${pagesRule}`,
        tags: [plural],
        querystring: resource.query ?? ResourceListQuery,
        response: { 200: ref(resource.many), ...problems('invalid_query') },
      },
    },
    async (request) =>
      answerPage(
        request.query as Filter & { limit?: number; cursor?: string }, // checked with resource.query before
        (filter, page) => resource.list(filter as Filter, page),
        (item) => item.id,
      ),
  )
  api.get(
    `/v1/${plural}/:id`,
    {
      schema: {
        operationId: `get${noun}`,
        summary: `Show one of the ${words}`,
        description: `${about}\n\n404 \`not_found\` when there is none with this id.`,
        tags: [plural],
        params: IdParams,
        response: { 200: withHeaders(ref(resource.one), { etag: ETag }), ...problems('not_found') },
      },
    },
    async (request, reply) => {
      const { document, etag } = await resource.get(request.params.id)
      return etag === null ? document : reply.header('etag', etag).send(document)
    },
  )
}

export interface ChangeableResource<Patch, Item> {
  plural: string
  noun: string
  aNoun: string
  /** For the OpenAPI document, in whole sentences: what can be changed, and when it is in force. */
  aboutChange: string
  one: TSchema
  patchBody: TSchema
  /** Codes of its own that a change or a removal can be answered with. */
  ownProblems?: readonly ErrorCode[]
  /** Error codes of its own that a PATCH can be answered with. */
  ownPatchProblems?: readonly ErrorCode[]
  patch: (id: string, body: Patch, ifMatch: string | undefined) => Promise<Versioned<Item>>
}

/** The route that changes a resource. */
export function patchRoute<Patch, Item extends { id: string }>(api: Api, resource: ChangeableResource<Patch, Item>) {
  const { plural, noun, aNoun, aboutChange, ownProblems = [], ownPatchProblems = [] } = resource
  api.patch(
    `/v1/${plural}/:id`,
    {
      schema: {
        operationId: `update${noun}`,
        summary: `Change ${aNoun}`,
        description: `${aboutChange}\n\n${patchRule}`,
        tags: [plural],
        params: IdParams,
        headers: PreconditionHeaders,
        body: ref(resource.patchBody),
        response: {
          200: withHeaders(ref(resource.one), { etag: ETag }),
          ...problems(...patchProblems, ...ownProblems, ...ownPatchProblems),
        },
      },
    },
    async (request, reply) => {
      // body checked with resource.patchBody before
      const changed = await resource.patch(request.params.id, request.body as Patch, request.headers['if-match'])
      return reply.header('etag', changed.etag).send(changed.document)
    },
  )
}

/** Error codes that a PATCH can be answered with. */
export const patchProblems = [
  'invalid_path',
  'invalid_json',
  'invalid_header',
  'not_found',
  'precondition_failed',
  'body_too_large',
  'unsupported_media_type',
  'validation_failed',
] as const

export interface OwnedResource<Input, Patch, Item, Filter = ListFilter>
  extends ReadableResource<Item, Filter>,
    ChangeableResource<Patch, Item> {
  /** With its article, for people: `an SSH key`. */
  aNoun: string
  /** For the OpenAPI document, in whole sentences: what comes of it, and what is refused. */
  aboutCreate: string
  /** For the OpenAPI document, in whole sentences: what uses one, and what goes with it. */
  aboutDelete: string
  body: TSchema
  /** Error codes of its own that a POST can be answered with. */
  createProblems?: readonly ErrorCode[]
  create: (tx: Transaction, body: Input) => Promise<Item>
  remove: (id: string) => Promise<void>
}

/** Whether a body without any field would be refused. */
function hasRequiredFields(schema: TSchema): boolean {
  const required: unknown = Reflect.get(schema, 'required')
  return Array.isArray(required) && required.length > 0
}

/** The five routes of a resource that callers make and remove: list, show, create, change, delete. */
export function ownedRoutes<Input, Patch, Item extends { id: string }, Filter = ListFilter>(
  api: Api,
  ctx: Context,
  resource: OwnedResource<Input, Patch, Item, Filter>,
): void {
  const { plural, noun, aNoun, aboutCreate, aboutDelete, ownProblems = [], createProblems = [] } = resource
  readRoutes(api, resource)
  patchRoute(api, resource)
  api.post(
    `/v1/${plural}`,
    {
      config: { optionalBody: !hasRequiredFields(resource.body) },
      schema: {
        operationId: `create${noun}`,
        summary: `Create ${aNoun}`,
        description: `${aboutCreate} An id that is taken is 409 \`already_exists\`.\n\n${keyRule}`,
        tags: [plural],
        headers: IdempotencyHeaders,
        body: ref(resource.body),
        response: { 201: ref(resource.one), ...problems('already_exists', ...createProblems, ...postProblems) },
      },
    },
    async (request, reply) =>
      answerPost(ctx, request, reply, async (tx) => {
        const created = await resource.create(tx, request.body as Input) // checked with resource.body before
        return { status: 201, location: `/v1/${plural}/${created.id}`, body: created }
      }),
  )
  api.delete(
    `/v1/${plural}/:id`,
    {
      schema: {
        operationId: `delete${noun}`,
        summary: `Delete ${aNoun} that nothing uses`,
        description: `${aboutDelete} What is used is 409 \`in_use\`, naming users. ${repeatedDelete}`,
        tags: [plural],
        params: IdParams,
        response: { 204: NoContent, ...problems('invalid_path', 'not_found', 'in_use', ...ownProblems) },
      },
    },
    async (request, reply) => {
      await resource.remove(request.params.id)
      return reply.code(204).send(null)
    },
  )
}
