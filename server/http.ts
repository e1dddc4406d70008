import { randomBytes } from 'node:crypto'
import { errorCatalogue } from '@berth/contract/errors.ts'
import type { Problem } from '@berth/contract/problem.ts'
import swagger from '@fastify/swagger'
import Fastify, {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
} from 'fastify'
import type { Logger } from 'pino'
import { ApiError } from './api-error.ts'
import { isStorageFull } from './store/store.ts'
import { requestError, useStrictValidation } from './validation.ts'

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
    genReqId: () => `req-${randomBytes(10).toString('hex')}`,
    frameworkErrors: (error, request, reply) => sendError(error, request, reply),
    forceCloseConnections: true,
  })
  useStrictValidation(app, named)
  for (const schema of named) app.addSchema(schema)
  acceptOnlyJson(app)
  app.setErrorHandler((error: FastifyError, request, reply) => sendError(error, request, reply))
  app.setNotFoundHandler((request, reply) => {
    return sendError(
      new ApiError('route_not_found', `There is no route ${request.method} ${request.url}.`),
      request,
      reply,
    )
  })
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id)
    refuseForeignPages(request)
  })
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Berth',
        version: '1.0.0',
        description: 'A compute cloud for your own machines.',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      servers: [{ url: 'http://127.0.0.1:7480' }],
      security: [{}],
    },
    refResolver: {
      buildLocalReference: (json, _base, _fragment, index) =>
        typeof json.$id === 'string' ? json.$id : `def-${index}`,
    },
  })
  return app
}

/** Bodies are JSON or absent; an empty one is as good as none, also with a JSON content type. */
function acceptOnlyJson(app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, body, done) => {
    const text = body.toString()
    if (text.trim() === '') return done(null, undefined)
    try {
      done(null, JSON.parse(text))
    } catch (error) {
      const why = error instanceof Error ? error.message : 'unknown fault'
      done(new ApiError('invalid_json', `The body is not valid JSON: ${why}`))
    }
  })
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

function problemDocument(error: ApiError, requestId: string): Problem {
  return {
    type: `/docs/errors#${error.code}`,
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
  return new ApiError('internal', 'The server failed; its log has the cause under this request id.', { cause: error })
}
