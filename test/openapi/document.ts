import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** A JSON schema of the document. */
export type Schema = { [keyword: string]: unknown }

export interface Parameter {
  name: string
  in: 'path' | 'query' | 'header'
  required?: boolean
  description?: string
  schema: Schema
}

export interface Header {
  required?: boolean
  schema: Schema
}

/** A response with its references resolved; the schemas in it may refer to others. */
export interface Response {
  headers: Record<string, Header>
  /** Null: no body. */
  content: Record<string, { schema?: Schema }> | null
}

export interface Operation {
  /** Lower case. */
  method: string
  /** Template: `/v1/instances/{id}`. */
  path: string
  summary: string
  /** "" when there is none. */
  description: string
  parameters: readonly Parameter[]
  requestBody: { required?: boolean; content: Record<string, { schema: Schema }> } | null
  responses: Record<string, Response>
}

interface RawResponse {
  $ref?: string
  headers?: Record<string, { $ref?: string }>
  content?: Response['content']
}

const document = JSON.parse(readFileSync(join(import.meta.dirname, '../../openapi.json'), 'utf8'))

/** The named schemas of the committed openapi.json; `$ref` in them is `#/components/schemas/<name>`. */
export const namedSchemas: Readonly<Record<string, Schema>> = document.components.schemas

/** Every operation of the committed openapi.json. */
export const operations: readonly Operation[] = Object.entries<Record<string, RawOperation>>(document.paths).flatMap(
  ([path, item]) => Object.entries(item).map(([method, raw]) => readOperation(method, path, raw)),
)

interface RawOperation {
  summary?: string
  description?: string
  parameters?: Parameter[]
  requestBody?: Operation['requestBody']
  responses: Record<string, RawResponse>
}

function readOperation(method: string, path: string, raw: RawOperation): Operation {
  return {
    method,
    path,
    summary: raw.summary ?? '',
    description: raw.description ?? '',
    parameters: raw.parameters ?? [],
    requestBody: raw.requestBody ?? null,
    responses: Object.fromEntries(
      Object.entries(raw.responses).map(([status, response]) => [status, readResponse(response)]),
    ),
  }
}

function readResponse(raw: RawResponse): Response {
  const { headers = {}, content = null } = resolve<RawResponse>(raw)
  return {
    headers: Object.fromEntries(Object.entries(headers).map(([name, header]) => [name, resolve<Header>(header)])),
    content,
  }
}

/** What a reference within the document stands for; anything else is given back as it is. */
function resolve<T>(value: { $ref?: string }): T {
  if (value.$ref === undefined) return value as T
  return value.$ref
    .slice(2)
    .split('/')
    .reduce((inner, key) => inner[key], document)
}
