import { createHash, timingSafeEqual } from 'node:crypto'
import {
  ConsolePositions,
  ConsolePost,
  Desired,
  desiredHoldMs,
  Observed,
} from '@berth/contract/hosts/agent-protocol.ts'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { ApiError } from '../api-error.ts'
import type { HostCredential } from '../config.ts'
import type { Context } from '../context.ts'
import { readDesired } from '../domain/hosts/desired-state.ts'
import { recordConsole, recordObserved } from '../domain/hosts/reports.ts'
import type { Api } from '../http/api.ts'
import { callerSignal } from '../http/caller-signal.ts'
import { NoContent } from '../http/problems.ts'
import { holdRequest } from '../http/tracking.ts'

/** A report covers every instance of a host: about 3 KiB each. */
const observedLimitBytes = 64 * 1024 * 1024

/** /v1/agent: what hosts say to the server, each with its own credential. Not part of the public document. */
export function agentRoutes(api: Api, ctx: Context, credentials: readonly HostCredential[]): void {
  const authenticate = hostAuthenticator(credentials)
  // before the body is read: a stranger's is not worth looking at
  const onRequest = async (request: FastifyRequest) => {
    authenticate(request)
  }

  const onReport = async (request: FastifyRequest) => {
    try {
      authenticate(request)
    } catch (error) {
      ctx.metrics.hostReports.inc({ outcome: 'foreign' })
      throw error
    }
  }

  api.get(
    '/v1/agent/desired',
    {
      onRequest,
      config: { routine: true },
      schema: {
        hide: true,
        querystring: Type.Object({ since: Type.Integer({ minimum: 0 }) }),
        response: { 200: Desired, 204: NoContent },
      },
    },
    async (request, reply) => {
      const hostId = authenticate(request)
      holdRequest(ctx.metrics, reply, 'host')
      const wait = { since: request.query.since, holdMs: desiredHoldMs, signal: callerSignal(reply) }
      const desired = await readDesired(ctx, hostId, wait)
      return desired === null ? reply.code(204).send(null) : desired
    },
  )

  api.post(
    '/v1/agent/observed',
    {
      onRequest: onReport,
      bodyLimit: observedLimitBytes,
      config: { routine: true, fromHost: true },
      schema: { hide: true, body: Observed },
    },
    async (request, reply) => {
      await recordObserved(ctx, authenticate(request), request.body)
      return reply.code(204).send()
    },
  )

  api.post(
    '/v1/agent/console-logs',
    {
      onRequest,
      config: { routine: true, fromHost: true },
      schema: { hide: true, body: ConsolePost, response: { 200: ConsolePositions } },
    },
    async (request) => {
      return { next_offsets: await recordConsole(ctx, authenticate(request), request.body.chunks) }
    },
  )
}

/** Finds the host a request speaks for by its bearer credential, compared in constant time. Throws unauthorized. */
function hostAuthenticator(credentials: readonly HostCredential[]): (request: FastifyRequest) => string {
  const digest = (text: string) => createHash('sha256').update(text).digest()
  const known = credentials.map(({ hostId, credential }) => ({ hostId, hash: digest(credential) }))
  return (request) => {
    const given = digest(/^Bearer (.{1,512})$/.exec(request.headers.authorization ?? '')?.[1] ?? '')
    const match = known.find(({ hash }) => timingSafeEqual(hash, given))
    if (match === undefined) throw new ApiError('unauthorized', 'The host credential is missing or not known.')
    return match.hostId
  }
}
