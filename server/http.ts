import { randomBytes } from 'node:crypto'
import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { errorCatalogue } from '@berth/contract/errors.ts'
import type { Problem } from '@berth/contract/problem.ts'
import { strict } from '@berth/contract/schema.ts'
import swagger from '@fastify/swagger'
import Fastify, {
  type ConnectionError,
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  type RouteOptions,
} from 'fastify'
import type { Logger } from 'pino'
import Type from 'typebox'
import { ApiError } from './api-error.ts'
import { openapiOptions } from './openapi.ts'
import { isStorageFull, isStorageUnavailable } from './store/engine.ts'
import { requestError, useStrictValidation } from './validation.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether a request without a body is as good as one with an empty object. */
    optionalBody?: boolean
  }
}

/** Largest body, bytes. The largest useful one carries 64 KiB of user data. */
const bodyLimitBytes = 1024 * 1024

/**
 * An HTTP server without routes that knows the named schemas: problem documents for every error, strict validation, and the guard that lets only
 * programs on this machine drive it.
 */
export async function buildHttp(log: Logger, named: readonly object[]): Promise<FastifyInstance> {
  const app: FastifyInstance = Fastify({
    loggerInstance: log.child({}, { level: 'warn' }) as FastifyBaseLogger,
    bodyLimit: bodyLimitBytes,
    requestTimeout: 60_000,
    routerOptions: { maxParamLength: 512 },
    genReqId: newRequestId,
    frameworkErrors: (error, request, reply) => sendError(error, request, reply),
    forceCloseConnections: true,
    clientErrorHandler: answerUnreadable,
  })
  // Node would answer 417 without a body to an Expect it does not know; it may be ignored (RFC 9110, 10.1.1)
  app.server.on('checkExpectation', (request, response) => app.server.emit('request', request, response))
  useStrictValidation(app, named)
  for (const schema of named) app.addSchema(schema)
  acceptOnlyJson(app)
  app.addHook('onRoute', refuseUnknownQueries)
  app.addHook('preValidation', async (request) => {
    // `null` is a body, and not one of the schema
    if (request.routeOptions.config.optionalBody === true && request.body === undefined) request.body = {}
  })
  app.setErrorHandler((error: FastifyError, request, reply) => sendError(error, request, reply))
  app.setNotFoundHandler((request, reply) => {
    return sendError(
      new ApiError('route_not_found', `There is no route ${request.method} ${shorten(request.url)}.`),
      request,
      reply,
    )
  })
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id)
    refuseForeignPages(request)
  })
  await app.register(swagger, openapiOptions(named))
  return app
}

/** A route that names no query parameter has none: a misspelt one must not be taken for a request without it. */
function refuseUnknownQueries(route: RouteOptions): void {
  if (route.schema !== undefined && route.schema.hide !== true) route.schema.querystring ??= Type.Object({}, strict)
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** Bodies are JSON or absent; an empty one is as good as none, also with a JSON content type. */
function acceptOnlyJson(app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser(
    ['application/json', 'application/merge-patch+json'],
    { parseAs: 'buffer' },
    (_request, body, done) => {
      try {
        const text = utf8.decode(Buffer.from(body))
        done(null, text.trim() === '' ? undefined : JSON.parse(text))
      } catch (error) {
        const why = error instanceof Error ? shorten(error.message) : 'unknown fault'
        done(new ApiError('invalid_json', `The body is not valid JSON: ${why}`))
      }
    },
  )
}

/**
 * A web page must not be able to drive a server that needs no token: the Host must be this machine by name (against
 * DNS rebinding), and no request may come from a page of another origin.
 */
function refuseForeignPages(request: FastifyRequest): void {
  const port = request.socket.localPort
  const names = ['127.0.0.1', 'localhost', '[::1]'].map((name) => `${name}:${port}`)
  const host = request.headers.host ?? ''
  if (!names.includes(host.toLowerCase())) {
    throw new ApiError('forbidden_origin', `Host must be one of ${names.join(', ')}.`)
  }
  const origin = request.headers.origin
  if (origin !== undefined && !names.some((name) => origin.toLowerCase() === `http://${name}`)) {
    throw new ApiError('forbidden_origin', 'The Origin is another one than this server.')
  }
  if (request.headers['sec-fetch-site'] === 'cross-site') {
    throw new ApiError('forbidden_origin', 'Requests from pages of other sites are refused.')
  }
}

function sendError(error: unknown, request: FastifyRequest, reply: FastifyReply) {
  const known = toApiError(error)
  if (known.status >= 500) request.log.error({ err: error, internal: known.internal }, 'request failed')
  if (known.status === 503) reply.header('retry-after', '1')
  return reply
    .code(known.status)
    .header('x-request-id', request.id)
    .header('content-type', 'application/problem+json')
    .serializer((payload: unknown) => JSON.stringify(payload))
    .send(problemDocument(known, request.id))
}

/** What Node's parser could not read as a request still gets a problem document, and the connection ends. */
function answerUnreadable(error: ConnectionError, socket: Socket): void {
  if (!socket.writable) return
  const tooLarge = error.code === 'HPE_HEADER_OVERFLOW'
  const known = tooLarge
    ? new ApiError('header_too_large', 'The request line and headers are too large.')
    : new ApiError('invalid_request', 'This is not a valid HTTP request.')
  const requestId = newRequestId()
  const body = JSON.stringify(problemDocument(known, requestId))
  const head = [
    `HTTP/1.1 ${known.status} ${STATUS_CODES[known.status]}`,
    'content-type: application/problem+json',
    `x-request-id: ${requestId}`,
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
}

const newRequestId = () => `req-${randomBytes(10).toString('hex')}`

/** Words of the caller are repeated only so far. */
function shorten(text: string): string {
  return text.length > 200 ? `${text.slice(0, 200)}…` : text
}

function problemDocument(error: ApiError, requestId: string): Problem {
  return {
    type: `urn:berth:problem:${error.code}`,
    title: errorCatalogue[error.code].title,
    status: error.status,
    detail: error.message,
    code: error.code,
    request_id: requestId,
    errors: [...error.errors],
  }
}

/** Errors of the framework by their codes (https://fastify.dev/docs/latest/Reference/Errors/). */
function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error
  if (isStorageFull(error)) {
    return new ApiError('storage_full', 'The disk that holds the state is full; nothing was changed.', { cause: error })
  }
  if (isStorageUnavailable(error)) {
    return new ApiError('unavailable', 'The database cannot be used at the moment; try again.', { cause: error })
  }
  if (!(error instanceof Error)) return new ApiError('internal', 'The server failed.', { cause: error })
  const { validation, validationContext, code, statusCode } = error as Partial<FastifyError>
  if (validation !== undefined) return requestError(validationContext, validation as Parameters<typeof requestError>[1])
  switch (code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new ApiError('body_too_large', `The body may have at most ${bodyLimitBytes} bytes.`)
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new ApiError('unsupported_media_type', 'Send the body with content-type: application/json.')
    case 'FST_ERR_BAD_URL':
    case 'FST_ERR_MAX_PARAM_LENGTH':
      return new ApiError('invalid_path', 'The path is not valid.')
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
    case 'FST_ERR_CTP_EMPTY_JSON_BODY':
      return new ApiError('invalid_json', error.message)
  }
  if (statusCode === 414) return new ApiError('uri_too_long', 'The URI is too long.')
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new ApiError('invalid_request', shorten(error.message), { cause: error })
  }
  return new ApiError('internal', 'The server failed; its log has the cause under this request id.', { cause: error })
}
