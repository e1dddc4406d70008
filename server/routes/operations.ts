import { pathIdPattern } from '@berth/contract/ids.ts'
import { Operation, OperationGetQuery, OperationList, OperationListQuery } from '@berth/contract/operations.ts'
import { ref } from '@berth/contract/schema.ts'
import Type from 'typebox'
import type { Context } from '../context.ts'
import { readOperation, readOperations } from '../domain/operations.ts'
import type { Api } from '../http/api.ts'
import { callerSignal } from '../http/caller-signal.ts'
import { problems } from '../http/problems.ts'
import { holdRequest } from '../http/tracking.ts'
import { pagesRule } from './conventions/descriptions.ts'
import { answerPage } from './conventions/list-page.ts'

const Params = Type.Object({ id: Type.String({ pattern: pathIdPattern }) })
const tags = ['operations']

/** /v1/operations */
export function operationRoutes(api: Api, ctx: Context): void {
  api.get(
    '/v1/operations',
    {
      schema: {
        operationId: 'listOperations',
        summary: 'List operations, newest first',
        description:
          'Operations of all kinds, also of resources that are gone. One that has ended is kept for 30 days unless the ' +
          'server is set otherwise.\n\n' +
          pagesRule,
        tags,
        querystring: OperationListQuery,
        response: { 200: ref(OperationList), ...problems('invalid_query') },
      },
    },
    async (request) =>
      answerPage(
        request.query,
        (filter, page) => readOperations(ctx, filter, page),
        (operation) => operation.id,
      ),
  )

  api.get(
    '/v1/operations/:id',
    {
      schema: {
        operationId: 'getOperation',
        summary: 'Show an operation, or wait until it ended',
        description:
          'Its steps with times and attempts, and the cause when it failed: `error.code` is for programs, `hint` ' +
          'says what can be done. An operation always ends, at the latest by its deadline, as `succeeded`, `failed` ' +
          'or `cancelled`.\n\nWith `wait` the answer comes when it has ended, or after that many seconds with the ' +
          'operation as it is then: look at `status`. When too many requests wait already it is 429 `too_many_waits`.',
        tags,
        params: Params,
        querystring: OperationGetQuery,
        response: { 200: ref(Operation), ...problems('not_found', 'too_many_waits') },
      },
    },
    async (request, reply) => {
      const { wait } = request.query
      if (wait !== undefined && wait > 0) holdRequest(ctx.metrics, reply, 'wait')
      return readOperation(ctx, request.params.id, wait, callerSignal(reply))
    },
  )
}
