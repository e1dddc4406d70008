import Type from 'typebox'
import { ApiError } from '../api-error.ts'
import type { Context } from '../context.ts'
import type { Api } from '../http/api.ts'
import { problems } from '../http/problems.ts'

const Status = Type.Object({ status: Type.Literal('ok') }, { additionalProperties: false })

/** /healthz: the process answers. /readyz: it can serve, the database included. */
export function healthRoutes(api: Api, ctx: Context): void {
  const tags = ['health']
  const config = { routine: true }
  api.get(
    '/healthz',
    {
      config,
      schema: {
        operationId: 'getHealth',
        summary: 'Whether the process lives',
        description:
          '200 for as long as the process answers at all; it looks at nothing else, not even the database. For a ' +
          'supervisor that restarts what does not answer. Whether requests can be served is `/readyz`.',
        tags,
        response: { 200: Status, ...problems() },
      },
    },
    async () => ({ status: 'ok' as const }),
  )
  api.get(
    '/readyz',
    {
      config,
      schema: {
        operationId: 'getReadiness',
        summary: 'Whether it can serve: the database is read and written',
        description:
          '503 `unavailable` while it cannot; the detail names the parts that are not ready: database_read, ' +
          'database_write, or process while it stops.',
        tags,
        response: { 200: Status, ...problems() },
      },
    },
    async () => {
      const unready = await ctx.readiness.check()
      if (unready.length === 0) return { status: 'ok' as const }
      const parts = unready.map(({ part, message }) => `${part} (${message})`)
      const cause = unready.find(({ error }) => error !== undefined)?.error
      throw new ApiError('unavailable', `Not ready: ${parts.join(', ')}.`, { cause })
    },
  )
}
