import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { errorCatalogue } from '@berth/contract/errors.ts'
import type { Problem } from '@berth/contract/problem.ts'
import { fewRandomBytes } from '@berth/contract/random.ts'
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
import { ApiError } from '../api-error.ts'
import type { Limits } from '../limits.ts'
import type { ServerMetrics } from '../metrics/server-metrics.ts'
import { isStorageFull, isStorageUnavailable } from '../store/engine/engine.ts'
import { useCompiledSchemas } from './compiled-schemas.ts'
import { enforceLimits } from './connection-limits.ts'
import { parseJsonBody } from './json-body.ts'
import { openapiOptions } from './openapi.ts'
import { seldom } from './seldom.ts'
import { trackRequests } from './tracking.ts'
import { requestError } from './validation.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether a request without a body is as good as one with an empty object. */
    optionalBody?: boolean
    /** The body comes from a host that has proved who it is: it may be of any shape. */
    fromHost?: true
  }
}

/** Time that a client gets to take the answer to what was no request, milliseconds. */
const lingerMs = 2000

/**
 * An HTTP server without routes that knows the named schemas: problem documents for every error, strict validation, and the guard that lets only
 * programs on this machine drive it.
 */
export async function buildHttp(
  log: Logger,
  named: readonly object[],
  limits: Limits,
  metrics: ServerMetrics,
): Promise<FastifyInstance> {
  const app: FastifyInstance = Fastify({
    loggerInstance: log.child({}, { level: 'warn' }) as FastifyBaseLogger,
    bodyLimit: limits.bodyBytes,
    requestTimeout: limits.requestMs,
    keepAliveTimeout: limits.keepAliveMs,
    http: {
      maxHeaderSize: limits.headerBytes,
      headersTimeout: limits.headersMs,
      connectionsCheckingInterval: limits.checkMs,
    },
    routerOptions: { maxParamLength: 512 },
    genReqId: newRequestId,
    frameworkErrors: (error, request, reply) => {
      track(request, reply) // no hook sees these
      return sendError(error, request, reply)
    },
    forceCloseConnections: true,
    clientErrorHandler: (error, socket) => {
      metrics.unreadableRequests.inc()
      answerUnreadable(error, socket)
    },
  })
  // Node would answer 417 without a body to an Expect it does not know; it may be ignored (RFC 9110, 10.1.1)
  app.server.on('checkExpectation', (request, response) => app.server.emit('request', request, response))
  const track = trackRequests(app, metrics, log)
  enforceLimits(app, limits, log)
  useCompiledSchemas(app, named)
  for (const schema of named) app.addSchema(schema)
  acceptOnlyJson(app, limits)
  app.addHook('onRoute', refuseUnknownQueries)
  app.addHook('onRoute', takeAbsentBodies)
  app.setErrorHandler((error: FastifyError, request, reply) => sendError(error, request, reply))
  app.setNotFoundHandler((request, reply) => {
    return sendError(
      new ApiError('route_not_found', `There is no route ${request.method} ${shorten(request.url)}.`),
      request,
      reply,
    )
  })
  const refuseForeignPages = foreignPageGuard()
  app.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id)
    done(refuseForeignPages(request) ?? undefined)
  })
  await app.register(swagger, openapiOptions(named))
  return app
}

/** A route that names no query parameter has none: a misspelt one must not be taken for a request without it. */
function refuseUnknownQueries(route: RouteOptions): void {
  if (route.schema !== undefined && route.schema.hide !== true) route.schema.querystring ??= Type.Object({}, strict)
}

/** A request without a body is as good as one with an empty object, where the route says so. */
function takeAbsentBodies(route: RouteOptions): void {
  if (route.config?.optionalBody !== true) return
  route.preValidation = async (request) => {
    if (request.body === undefined) request.body = {} // `null` is a body, and not one of the schema
  }
}

/** Bodies are JSON or absent; an empty one is as good as none, also with a JSON content type. */
function acceptOnlyJson(app: FastifyInstance, limits: Limits): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser(
    ['application/json', 'application/merge-patch+json'],
    { parseAs: 'buffer' },
    async (request: FastifyRequest, body: Buffer) =>
      parseJsonBody(body, request.routeOptions.config.fromHost ? null : limits),
  )
}

/**
 * A web page must not be able to drive a server that needs no token: the Host must be this machine by name (against
 * DNS rebinding), and no request may come from a page of another origin. Gives the error, or null.
 */
function foreignPageGuard(): (request: FastifyRequest) => ApiError | null {
  let port: number | undefined
  let names: readonly string[] = []
  return ({ socket, headers }) => {
    if (socket.localPort !== port) {
      port = socket.localPort
      names = ['127.0.0.1', 'localhost', '[::1]'].map((name) => `${name}:${port}`)
    }
    if (!names.includes((headers.host ?? '').toLowerCase())) {
      return new ApiError('forbidden_origin', `Host must be one of ${names.join(', ')}.`)
    }
    const origin = headers.origin?.toLowerCase()
    if (origin !== undefined && !names.some((name) => origin === `http://${name}`)) {
      return new ApiError('forbidden_origin', 'The Origin is another one than this server.')
    }
    if (headers['sec-fetch-site'] === 'cross-site') {
      return new ApiError('forbidden_origin', 'Requests from pages of other sites are refused.')
    }
    return null
  }
}

function sendError(error: unknown, request: FastifyRequest, reply: FastifyReply) {
  const known = toApiError(error, request.routeOptions.bodyLimit)
  if (known.code === 'storage_full') logFullDisk(request, error)
  else if (known.status >= 500) request.failure = known // logged with the request, once
  if (known.status === 503 || known.status === 429) reply.header('retry-after', '1')
  return reply
    .code(known.status)
    .header('x-request-id', request.id)
    .header('content-type', 'application/problem+json')
    .serializer((payload: unknown) => JSON.stringify(payload))
    .send(problemDocument(known, request.id))
}

/** A full disk fails every write alike, and the log may lie on it: it is logged only so often. */
const logFullDisk = seldom(10_000, (request: FastifyRequest, error: unknown, skipped: number) =>
  request.log.error({ err: error, skipped }, 'the disk is full; writes fail until there is room'),
)

/**
 * What Node's parser could not read as a request still gets a problem document, and the connection ends: at the latest
 * after a while, because the client may keep its own end open for ever.
 */
function answerUnreadable(error: ConnectionError, socket: Socket): void {
  if (!socket.writable || answerHasBegun(socket)) {
    socket.destroy()
    return
  }
  const known = unreadable(error)
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
  const timer = setTimeout(() => socket.destroy(), lingerMs)
  socket.once('close', () => clearTimeout(timer))
}

/** Node keeps the answer that is being written at the socket; another one in the middle of it would be taken for its bytes. */
function answerHasBegun(socket: Socket): boolean {
  const current: unknown = Reflect.get(socket, '_httpMessage')
  return typeof current === 'object' && current !== null && Reflect.get(current, 'headersSent') === true
}

function unreadable(error: ConnectionError): ApiError {
  switch (error.code) {
    case 'HPE_HEADER_OVERFLOW':
      return new ApiError('header_too_large', 'The request line and headers are too large.')
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new ApiError('request_timeout', 'The request did not arrive in time.')
    default:
      return new ApiError('invalid_request', 'This is not a valid HTTP request.')
  }
}

function newRequestId(): string {
  return `req-${fewRandomBytes(10).toString('hex')}`
}

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

/** Node's word that the client has gone before its request was there. Nobody hears the answer, but it is no failure. */
function isAborted(error: unknown): boolean {
  const { code, statusCode } = Object(error)
  return code === 'ECONNRESET' && statusCode === 400
}

/** Errors of the framework by their codes (https://fastify.dev/docs/latest/Reference/Errors/). */
function toApiError(error: unknown, bodyLimitBytes: number): ApiError {
  if (error instanceof ApiError) return error
  if (isAborted(error)) return new ApiError('invalid_request', 'The connection ended within the request.')
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
