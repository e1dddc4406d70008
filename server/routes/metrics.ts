import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { Registry } from 'prom-client'
import Type from 'typebox'
import type { Context } from '../context.ts'
import type { Api } from '../http/api.ts'
import { problems } from '../http/problems.ts'
import { stateMetrics } from '../metrics/state-metrics.ts'

/** GET /metrics */
export function metricsRoutes(api: Api, ctx: Context): void {
  const readState = stateMetrics(ctx)
  api.get(
    '/metrics',
    {
      config: { routine: true },
      schema: {
        operationId: 'getMetrics',
        summary: 'Figures of this server and of what it keeps, for Prometheus',
        description: 'Text format 0.0.4 of Prometheus. docs/observability.md lists the metrics.',
        tags: ['health'],
        response: {
          200: { description: 'The figures', content: { 'text/plain': { schema: Type.String() } } },
          ...problems(),
        },
      },
    },
    async (request, reply) => {
      await dropBody(request.raw)
      await readState()
      return reply.type(Registry.PROMETHEUS_CONTENT_TYPE).send(await ctx.metrics.render())
    },
  )
}

/**
 * Read a body that nobody asked for to its end. A connection that is closed before it was read is reset, and the reset
 * takes with it what the caller has not yet read of an answer as long as this one. `requestTimeout` bounds it.
 */
async function dropBody(request: IncomingMessage): Promise<void> {
  if (request.headers['content-length'] === undefined && request.headers['transfer-encoding'] === undefined) return
  if (request.readableEnded || request.destroyed) return
  const closed = once(request, 'close')
  request.resume()
  await closed
}
