import type { IncomingHttpHeaders } from 'node:http'
import { Desired } from '@berth/contract/hosts/agent-protocol.ts'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import { fullFormats } from 'ajv-formats/dist/formats.js'
import { namedSchemas, type Operation, operations, type Response, type Schema } from './document.ts'

/*
 * Whether an answer is one that openapi.json promises: status, content type, headers and body. What Node's parser
 * answers by itself to what is not HTTP is outside of the document; it must be a problem document all the same.
 */

/** One answer of a server, whole. */
export interface ReceivedResponse {
  status: number
  headers: IncomingHttpHeaders
  text: string
}

/** Paths that are not in the document: the document itself, its page, and what hosts say to the server. */
const hiddenPaths = /^\/(openapi\.json|docs(\/.*)?|v1\/agent\/.*)$/

/** What may be answered where the document has no operation: its text lists them under "Not listed below". */
const codesOutside = [
  'route_not_found',
  'invalid_path',
  'invalid_request',
  'forbidden_origin',
  // a body is read before it is known that there is nobody for it
  'invalid_json',
  'body_too_large',
  'unsupported_media_type',
]

/** What is answered before there is a request: Node's parser gave up. Such an answer has no Date. */
const parserCodes = ['invalid_request', 'header_too_large']

/** Headers that belong to the connection, the representation or the browser, not to the API. */
const plainHeaders = [
  'cache-control',
  'connection',
  'content-length',
  'content-type',
  'date',
  'keep-alive',
  'transfer-encoding',
  'x-content-type-options',
]

const ajv = new Ajv2020({ strict: true, strictTypes: false, strictRequired: false, formats: fullFormats })
ajv.addVocabulary(['example', 'discriminator', 'externalDocs', 'xml'])
for (const [name, schema] of Object.entries(namedSchemas)) ajv.addSchema(localRefs(schema), name)

const compiled = new Map<Schema, ValidateFunction>()

/** The validator of a schema of the document, compiled at its first use. */
export function validatorOf(schema: Schema): ValidateFunction {
  const known = compiled.get(schema)
  if (known !== undefined) return known
  const validate = ajv.compile(localRefs(schema))
  compiled.set(schema, validate)
  return validate
}

/** Named schemas are known by their name alone. */
function localRefs(schema: Schema): Schema {
  return JSON.parse(JSON.stringify(schema).replaceAll('"#/components/schemas/', '"'))
}

/**
 * Throw unless openapi.json allows this answer to a request. `path` is as it was sent, with the query. Answers of hidden
 * routes are checked by the contract where it has a schema for them.
 */
export function checkResponse(method: string, path: string, response: ReceivedResponse): void {
  const fault = findFault(method, path, response)
  if (fault === null) return
  const text = response.text.length > 2000 ? `${response.text.slice(0, 2000)}…` : response.text
  throw new Error(
    `${method} ${path.slice(0, 300)} was answered with ${response.status}, ${fault}\n` +
      `If the answer is right, the route's schema has to say so (docs/add-an-endpoint.md); then npm run gen.\n${text}`,
  )
}

function findFault(method: string, path: string, response: ReceivedResponse): string | null {
  if (response.headers.date === undefined) return parserFault(response)
  const decoded = decodePath(path)
  if (decoded !== null && hiddenPaths.test(decoded)) return hiddenFault(method, decoded, response)
  const operation = decoded === null ? undefined : findOperation(method, decoded)
  if (operation === undefined) return outsideFault(response)
  const documented = operation.responses[response.status]
  if (documented === undefined) {
    return `which openapi.json does not list for ${operation.method} ${operation.path}`
  }
  return (
    headerFault(documented, response.headers) ??
    bodyFault(documented, method === 'HEAD' ? { ...response, text: '' } : response, method === 'HEAD')
  )
}

/** The path without its query, decoded as the router does; null where it cannot be decoded. */
function decodePath(path: string): string | null {
  try {
    return decodeURI(path.split(/[?#]/, 1)[0] ?? '')
  } catch {
    return null
  }
}

const routes = operations.map((operation) => ({
  operation,
  pattern: new RegExp(`^${operation.path.replaceAll('.', '\\.').replaceAll(/\{[^}]+\}/g, '[^/]*')}$`, 's'),
}))

function findOperation(method: string, decodedPath: string): Operation | undefined {
  const wanted = method === 'HEAD' ? 'get' : method.toLowerCase()
  const fitting = routes.filter(({ operation, pattern }) => operation.method === wanted && pattern.test(decodedPath))
  // a path that is spelt out goes before one with a parameter
  return (fitting.find(({ operation }) => !operation.path.includes('{')) ?? fitting[0])?.operation
}

/** An answer to what the document has no operation for must be one of a few errors. */
function outsideFault(response: ReceivedResponse): string | null {
  if (response.text === '' && response.status === 404) return null // HEAD
  const fault = problemFault(response)
  if (fault !== null) return `where openapi.json has no such path and method; ${fault}`
  const { code } = JSON.parse(response.text)
  return codesOutside.includes(code) ? null : `${code}, where openapi.json has no such path and method`
}

function parserFault(response: ReceivedResponse): string | null {
  const fault = problemFault(response)
  if (fault !== null) return `by the parser; ${fault}`
  const { code } = JSON.parse(response.text)
  return parserCodes.includes(code) ? null : `${code}, but only a parser leaves out Date`
}

function hiddenFault(method: string, path: string, response: ReceivedResponse): string | null {
  if (response.status >= 400) return problemFault(response)
  if (method !== 'GET' || path !== '/v1/agent/desired' || response.status !== 200) return null
  return schemaFault(ajv.compile(Desired), JSON.parse(response.text), 'the body breaks Desired')
}

function problemFault(response: ReceivedResponse): string | null {
  if (response.headers['content-type'] !== 'application/problem+json') return 'it is no problem document'
  if (response.headers['x-request-id'] === undefined) return 'it has no x-request-id'
  return schemaFault(validatorOf({ $ref: 'Problem' }), JSON.parse(response.text), 'it is no problem document')
}

function headerFault(documented: Response, headers: IncomingHttpHeaders): string | null {
  for (const [name, { required, schema }] of Object.entries(documented.headers)) {
    const value = headers[name.toLowerCase()]
    if (value === undefined && required === true) return `without the header ${name}`
    if (value === undefined) continue
    const typed = ['integer', 'number'].includes(String(schema.type)) ? Number(value) : value
    const fault = schemaFault(validatorOf(schema), typed, `the header ${name} breaks its schema`)
    if (fault !== null) return fault
  }
  const known = new Set([...plainHeaders, ...Object.keys(documented.headers).map((name) => name.toLowerCase())])
  const unknown = Object.keys(headers).find((name) => !known.has(name))
  return unknown === undefined ? null : `with the header ${unknown}, which openapi.json does not list (withHeaders)`
}

function bodyFault(documented: Response, { headers, text }: ReceivedResponse, headOnly: boolean): string | null {
  const type = headers['content-type']?.split(';', 1)[0]
  if (documented.content === null) return type === undefined && text === '' ? null : 'with a body it should not have'
  const media = type === undefined ? undefined : documented.content[type]
  if (media === undefined) return `with content type ${type}, not ${Object.keys(documented.content).join(' or ')}`
  if (media.schema === undefined || headOnly || type === 'text/event-stream') return null
  let body: unknown = text
  if (type?.endsWith('json') === true) {
    try {
      body = JSON.parse(text)
    } catch {
      return 'with a body that is not JSON'
    }
  }
  return schemaFault(validatorOf(media.schema), body, 'the body breaks its schema')
}

function schemaFault(validate: ValidateFunction, value: unknown, what: string): string | null {
  return validate(value) ? null : `${what}: ${ajv.errorsText(validate.errors)}`
}
