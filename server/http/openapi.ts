import { STATUS_CODES } from 'node:http'
import { type ErrorCode, errorCatalogue } from '@berth/contract/errors.ts'
import type { FastifyDynamicSwaggerOptions } from '@fastify/swagger'
import type { FastifySchema, RouteOptions } from 'fastify'
import { declaredCodes, frameworkCodes } from './problems.ts'

/*
 * The OpenAPI document. Routes say what is their own (schemas, success, the codes they throw); what holds for every
 * route is added here once, so that a new route has it without saying so: the errors the HTTP layer answers by itself,
 * `application/problem+json`, and the headers every answer carries.
 */

const description = `A compute cloud for your own machines.

Errors are problem documents (RFC 9457); each response lists the values its \`code\` can have. Unknown fields of a body
and unknown query parameters are errors. Every GET also answers HEAD.

Not listed below: a path or method that has no route is 404 \`route_not_found\`; a path that cannot be decoded is 400
\`invalid_path\`; what is not valid HTTP is 400 \`invalid_request\` or 431 \`header_too_large\` and ends the connection.`

/** Every tag a route may have. The document lists those in use. */
const tags = [
  { name: 'instances', description: 'Virtual machines: create, show, wait, change, delete' },
  { name: 'operations', description: 'What became of a request that takes time, step by step' },
  { name: 'events', description: 'Every change, as a stream' },
  { name: 'instance-types', description: 'Sizes an instance can have' },
  { name: 'images', description: 'Disks an instance can start from' },
  { name: 'ssh-keys', description: 'Public keys that get into instances' },
  { name: 'vpcs', description: 'Private networks' },
  { name: 'subnets', description: 'Address ranges of a VPC' },
  { name: 'security-groups', description: 'Firewall rules of instances' },
  { name: 'public-ips', description: 'Addresses that are reachable from outside' },
  { name: 'network', description: 'What passes between instances, and why' },
  { name: 'hosts', description: 'Machines that run instances' },
  { name: 'health', description: 'Whether the server lives and can serve' },
]

const headers = {
  'x-request-id': {
    description: 'Id of this request; the log of the server has it too',
    required: true,
    schema: { type: 'string', pattern: '^req-[0-9a-f]{20}$' },
  },
  'retry-after': {
    description: 'Seconds after which trying again makes sense',
    required: true,
    schema: { type: 'string', pattern: '^[0-9]+$' },
  },
  'idempotency-replayed': {
    description: 'The answer is the one of an earlier request with the same Idempotency-Key',
    schema: { type: 'string', const: 'true' },
  },
  location: {
    description: 'Path of what was created',
    required: true,
    schema: { type: 'string', pattern: '^/v1/' },
  },
}

/** Statuses that come with Retry-After. */
const retryLater = new Set(['429', '503'])

interface Response {
  $ref?: string
  description?: string
  headers?: Record<string, object>
  content?: Record<string, object>
}

interface Operation {
  operationId?: string
  tags?: string[]
  requestBody?: { required?: boolean }
  responses: Record<string, Response>
}

/** What a route says that @fastify/swagger has no words for. */
interface RouteFacts {
  codes: readonly ErrorCode[]
  optionalBody: boolean
  /** Whether it takes an Idempotency-Key. */
  replayable: boolean
}

/** Options of @fastify/swagger that render the document with these schemas of the contract as its components. */
export function openapiOptions(named: readonly object[]): FastifyDynamicSwaggerOptions {
  const facts = new Map<string, RouteFacts>()
  return {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Berth',
        version: '1.0.0',
        description,
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      servers: [{ url: 'http://127.0.0.1:7480', description: 'berth dev on this machine' }],
      security: [{}],
    },
    refResolver: {
      buildLocalReference: (json, _base, _fragment, index) =>
        typeof json.$id === 'string' ? json.$id : `def-${index}`,
    },
    transform: ({ schema, url, route }) => {
      if (schema?.hide === true) return { schema, url }
      facts.set(operationIdOf(schema, route), {
        codes: [...declaredCodes(schema.response), ...frameworkCodes(route.method, schema)],
        optionalBody: route.config?.optionalBody === true,
        replayable: Reflect.has(Object(Object(schema.headers).properties), 'idempotency-key'),
      })
      const consumes =
        route.method === 'PATCH' ? ['application/json', 'application/merge-patch+json'] : ['application/json']
      return { schema: { consumes, ...schema, response: successes(schema.response) }, url }
    },
    transformObject: (rendered) => {
      if (!('openapiObject' in rendered)) throw new Error('only OpenAPI 3 is rendered')
      const document = rendered.openapiObject
      const operations = Object.values(document.paths ?? {}).flatMap((path) =>
        Object.values((path ?? {}) as Record<string, Operation>),
      )
      const problems: Record<string, Response> = {}
      for (const operation of operations) completeOperation(operation, facts, problems)
      const used = new Set(operations.flatMap((operation) => operation.tags ?? []))
      const { openapi, info, servers, security, paths } = document
      // JSON through and through, so the types of openapi-types add nothing here
      return {
        openapi,
        info,
        servers,
        security,
        tags: tags.filter((tag) => used.has(tag.name)),
        paths,
        components: {
          schemas: renderSchemas(named),
          responses: Object.fromEntries(Object.entries(problems).sort(([a], [b]) => (a < b ? -1 : 1))),
          headers,
        },
      } as ReturnType<NonNullable<FastifyDynamicSwaggerOptions['transformObject']>>
    },
  }
}

function operationIdOf(schema: FastifySchema | undefined, route: RouteOptions): string {
  const id = schema?.operationId
  if (id === undefined) throw new Error(`${route.method} ${route.url} needs an operationId, or hide: true`)
  return id
}

/** The responses of a route that are no errors. */
function successes(responses: unknown): Record<string, unknown> {
  return Object.fromEntries(Object.entries(responses ?? {}).filter(([status]) => Number(status) < 400))
}

function completeOperation(
  operation: Operation,
  facts: ReadonlyMap<string, RouteFacts>,
  problems: Record<string, Response>,
): void {
  const { codes = [], optionalBody = false, replayable = false } = facts.get(operation.operationId ?? '') ?? {}
  if (operation.requestBody !== undefined) operation.requestBody.required = !optionalBody
  for (const [status, response] of Object.entries(operation.responses)) {
    if (replayable) response.headers = { ...response.headers, ...headerRefs('idempotency-replayed') }
    if (response.description === 'Default Response') response.description = STATUS_CODES[status] ?? status
    response.headers = { ...commonHeaders(status), ...response.headers }
  }
  for (const [status, ofStatus] of Object.entries(Object.groupBy(codes, (code) => errorCatalogue[code].status))) {
    const distinct = [...new Set(ofStatus)].sort()
    const name = distinct.map(pascalCase).join('Or')
    problems[name] = problemResponse(status, distinct)
    operation.responses[status] = { $ref: `#/components/responses/${name}` }
  }
}

function problemResponse(status: string, codes: readonly ErrorCode[]): Response {
  return {
    description: codes.map((code) => `${code}: ${errorCatalogue[code].title}`).join('; '),
    headers: commonHeaders(status),
    content: {
      'application/problem+json': {
        schema: {
          allOf: [{ $ref: '#/components/schemas/Problem' }, { properties: { code: { type: 'string', enum: codes } } }],
        },
      },
    },
  }
}

function commonHeaders(status: string): Record<string, object> {
  const names: (keyof typeof headers)[] = ['x-request-id']
  if (retryLater.has(status)) names.push('retry-after')
  if (status === '201') names.push('location')
  return headerRefs(...names)
}

function headerRefs(...names: (keyof typeof headers)[]): Record<string, object> {
  return Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]))
}

function pascalCase(code: string): string {
  return code.replaceAll(/(?:^|_)([a-z])/g, (_match, letter: string) => letter.toUpperCase())
}

/** The named schemas as they stand: @fastify/swagger would drop `patternProperties` and what stands beside a `$ref`. */
function renderSchemas(named: readonly object[]): Record<string, unknown> {
  return Object.fromEntries(named.map((schema) => [String(Reflect.get(schema, '$id')), renderSchema(schema)]))
}

function renderSchema(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(renderSchema)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).filter(([key, inner]) => !(key === '$id' && typeof inner === 'string'))
  return Object.fromEntries(
    entries.map(([key, inner]) => {
      const local = key === '$ref' && typeof inner === 'string' && !inner.startsWith('#')
      return [key, local ? `#/components/schemas/${inner}` : renderSchema(inner)]
    }),
  )
}
