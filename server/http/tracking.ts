import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Logger } from 'pino'
import type { ApiError } from '../api-error.ts'
import { abortedStatus, type RouteDurations } from '../metrics/request-durations.ts'
import type { HeldKind, ServerMetrics } from '../metrics/server-metrics.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    durations?: RouteDurations
    /** Requests that machines make all the time: logged at debug unless they fail. */
    routine?: boolean
  }
  interface FastifyRequest {
    /** The error that is answered when it is the server's fault. */
    failure?: ApiError | null
  }
  interface FastifyReply {
    /** Absent when no hook sees the request. */
    heldAs?: HeldKind | null
  }
}

/** A caller's own id for a request is logged when it is of this form; anything else could forge lines or flood. */
const callerRequestId = /^[A-Za-z0-9._:/+=-]{1,64}$/

/**
 * Count and log every request of a server, once, when it is over: answered, or left by its caller. Gives the function
 * that does it for a request that Fastify's hooks do not see.
 */
export function trackRequests(
  app: FastifyInstance,
  metrics: ServerMetrics,
  log: Logger,
): (request: FastifyRequest, reply: FastifyReply) => void {
  const unmatched = new Map<string, RouteDurations>()
  app.decorateRequest('failure', null)
  app.decorateReply('heldAs', null)
  app.addHook('onRoute', (route) => {
    const durations = metrics.requestDurations.route(String(route.method), route.url)
    route.config = { ...route.config, durations }
  })

  const durationsOf = (request: FastifyRequest) => {
    const known = request.routeOptions.config?.durations
    if (known !== undefined) return known
    const { method } = request // one of those Node's parser knows
    const durations = unmatched.get(method) ?? metrics.requestDurations.route(method, 'unmatched')
    unmatched.set(method, durations)
    return durations
  }

  const track = (request: FastifyRequest, reply: FastifyReply) => {
    const startedAt = performance.now()
    const { raw } = reply
    metrics.requests.open++
    raw.on('close', () => {
      const ms = performance.now() - startedAt
      const durations = durationsOf(request)
      const status = raw.headersSent ? raw.statusCode : abortedStatus
      metrics.requests.open--
      const held = reply.heldAs ?? null
      if (held === null) {
        durations.observe(status, ms / 1000)
      } else {
        metrics.requests.held[held]--
        metrics.heldDurations.observe({ kind: held }, ms / 1000)
      }
      logRequest(log, request, { durations, status, ms, held, whole: raw.writableFinished })
    })
  }
  app.addHook('onRequest', (request, reply, done) => {
    track(request, reply)
    done()
  })
  return track
}

/** Count a request as held from now on: it is answered when something happens, which says nothing about the server. */
export function holdRequest(metrics: ServerMetrics, reply: FastifyReply, kind: HeldKind): void {
  reply.heldAs = kind
  metrics.requests.held[kind]++
}

interface Outcome {
  durations: RouteDurations
  status: number
  ms: number
  held: HeldKind | null
  whole: boolean
}

/** The route's pattern is logged, never the URL or a header: what callers send may be secret, and forge lines. */
function logRequest(log: Logger, request: FastifyRequest, { durations, status, ms, held, whole }: Outcome): void {
  const level = levelOf(request, status)
  if (!log.isLevelEnabled(level)) return
  const caller = request.headers['x-request-id']
  const failure = request.failure ?? null
  log[level](
    {
      request_id: request.id,
      ...(typeof caller === 'string' && callerRequestId.test(caller) ? { caller_request_id: caller } : {}),
      method: durations.method,
      route: durations.route,
      ...(status === abortedStatus ? {} : { status }),
      duration_ms: Math.round(ms * 1000) / 1000,
      ...(held === null ? {} : { held }),
      ...(whole ? {} : { aborted: true }),
      ...(failure === null
        ? {}
        : { code: failure.code, detail: failure.message, err: failure.cause, internal: failure.internal }),
    },
    'request',
  )
}

function levelOf(request: FastifyRequest, status: number): 'error' | 'info' | 'debug' {
  if (status >= 500) return 'error'
  return status < 400 && request.routeOptions.config?.routine === true ? 'debug' : 'info'
}
