import Type from 'typebox'
import type { Context } from '../context.ts'
import type { Api } from './api.ts'
import { problems } from './problems.ts'

const Status = Type.Object({ status: Type.Literal('ok') }, { additionalProperties: false })

/** /healthz: the process answers. /readyz: it can serve, the database included. */
export function healthRoutes(api: Api, ctx: Context): void {
  const tags = ['health']
  api.get(
    '/healthz',
    {
      schema: {
        operationId: 'getHealth',
        summary: 'Whether the process lives',
        tags,
        response: { 200: Status, ...problems() },
      },
    },
    async () => ({ status: 'ok' as const }),
  )
  api.get(
    '/readyz',
    {
      schema: {
        operationId: 'getReadiness',
        summary: 'Whether it can serve',
        tags,
        response: { 200: Status, ...problems() },
      },
    },
    async () => {
      await ctx.store.read.selectFrom('hosts').select('id').limit(1).execute()
      return { status: 'ok' as const }
    },
  )
}
