import { pathIdPattern } from '@berth/contract/ids.ts'
import {
  Accepted,
  ConsoleLogQuery,
  graceSeconds,
  Instance,
  InstanceCreate,
  InstanceCreated,
  InstanceCreateQuery,
  InstanceDeleteQuery,
  InstanceDryRun,
  InstanceGetQuery,
  InstanceList,
  InstanceListQuery,
  InstancePatch,
  PowerActionBody,
  StartBody,
} from '@berth/contract/instances/instances.ts'
import { InstanceMetrics } from '@berth/contract/instances/usage.ts'
import { IdempotencyHeaders, PreconditionHeaders, ref } from '@berth/contract/schema.ts'
import Type from 'typebox'
import { type Context, forRequest } from '../context.ts'
import { createInstance, dryRunInstance } from '../domain/instances/create.ts'
import {
  awaitInstance,
  patchInstance,
  readConsoleLog,
  readInstance,
  readInstances,
} from '../domain/instances/instances.ts'
import { readInstanceMetrics } from '../domain/instances/metrics.ts'
import { actOnInstance, deleteInstance } from '../domain/instances/power.ts'
import type { Api } from '../http/api.ts'
import { callerSignal } from '../http/caller-signal.ts'
import { problems } from '../http/problems.ts'
import { BerthWait, ETag, withHeaders } from '../http/response-headers.ts'
import { holdRequest } from '../http/tracking.ts'
import type { Transaction } from '../store/transaction.ts'
import { answerPage, withLabels } from './conventions/list-page.ts'
import { answerPost, postProblems } from './conventions/posts.ts'
import { patchProblems } from './conventions/resource-routes.ts'

const Params = Type.Object({ id: Type.String({ pattern: pathIdPattern }) })
const tags = ['instances']

/** As Fastify says it of what it renders itself; `JSON.stringify` takes a third of the time that checking types takes. */
const jsonType = 'application/json; charset=utf-8'

/** /v1/instances */
export function instanceRoutes(api: Api, ctx: Context): void {
  api.post(
    '/v1/instances',
    {
      schema: {
        operationId: 'createInstance',
        summary: 'Create an instance',
        tags,
        querystring: InstanceCreateQuery,
        headers: IdempotencyHeaders,
        body: ref(InstanceCreate),
        response: {
          200: ref(InstanceDryRun),
          201: ref(InstanceCreated),
          ...problems('invalid_query', 'image_needs_uefi', 'no_addresses', ...postProblems),
        },
      },
    },
    async (request, reply) => {
      if (request.query.dry_run === true) return reply.code(200).send(await dryRunInstance(ctx, request.body))
      return answerPost(ctx, request, reply, async (tx) => {
        const created = await createInstance(forRequest(ctx, request), tx, request.body)
        return { status: 201, location: `/v1/instances/${created.id}`, body: created }
      })
    },
  )

  api.get(
    '/v1/instances',
    {
      schema: {
        operationId: 'listInstances',
        summary: 'List instances, oldest first',
        tags,
        querystring: InstanceListQuery,
        response: { 200: ref(InstanceList), ...problems('invalid_query') },
      },
    },
    async (request, reply) => {
      const page = await answerPage(
        request.query,
        (filter, bounds) => readInstances(ctx, withLabels(filter), bounds),
        (instance) => instance.id,
      )
      return reply.type(jsonType).send(JSON.stringify(page) as never)
    },
  )

  api.get(
    '/v1/instances/:id',
    {
      schema: {
        operationId: 'getInstance',
        summary: 'Show an instance, or wait until it is in a state',
        tags,
        params: Params,
        querystring: InstanceGetQuery,
        response: {
          200: withHeaders(ref(Instance), { etag: ETag, 'berth-wait': BerthWait }),
          ...problems('not_found', 'too_many_waits'),
        },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      const { wait_for: target, timeout = 60 } = request.query
      if (target === undefined) {
        const { document, etag } = await readInstance(ctx, id)
        return reply
          .header('etag', etag)
          .type(jsonType)
          .send(JSON.stringify(document) as never)
      }
      holdRequest(ctx.metrics, reply, 'wait')
      const wait = { target, timeoutSeconds: timeout }
      const { document, etag, outcome } = await awaitInstance(ctx, id, wait, callerSignal(reply))
      return reply.header('berth-wait', outcome).header('etag', etag).send(document)
    },
  )

  api.patch(
    '/v1/instances/:id',
    {
      schema: {
        operationId: 'updateInstance',
        summary: 'Change name, labels or security groups of an instance',
        tags,
        params: Params,
        headers: PreconditionHeaders,
        body: ref(InstancePatch),
        response: {
          200: withHeaders(ref(Instance), { etag: ETag }),
          ...problems('invalid_state', ...patchProblems),
        },
      },
    },
    async (request, reply) => {
      const ifMatch = request.headers['if-match']
      const { document, etag } = await patchInstance(ctx, request.params.id, request.body, ifMatch)
      return reply.header('etag', etag).send(document)
    },
  )

  api.delete(
    '/v1/instances/:id',
    {
      schema: {
        operationId: 'deleteInstance',
        summary: 'Delete an instance and all it uses',
        tags,
        params: Params,
        querystring: InstanceDeleteQuery,
        response: { 202: ref(Accepted), ...problems('invalid_path', 'not_found') },
      },
    },
    async (request, reply) => {
      const grace = request.query.grace_seconds ?? graceSeconds.onDelete
      return reply
        .code(202)
        .send({ operation_id: await deleteInstance(forRequest(ctx, request), request.params.id, grace) })
    },
  )

  for (const action of ['start', 'stop', 'reboot'] as const) {
    api.post(
      `/v1/instances/:id/${action}`,
      {
        config: { optionalBody: true },
        schema: {
          operationId: `${action}Instance`,
          summary: `${action.charAt(0).toUpperCase()}${action.slice(1)} an instance`,
          tags,
          params: Params,
          headers: IdempotencyHeaders,
          body: ref(action === 'start' ? StartBody : PowerActionBody),
          response: {
            202: ref(Accepted),
            ...problems('invalid_path', 'not_found', 'invalid_state', ...postProblems),
          },
        },
      },
      async (request, reply) => {
        const { id } = request.params
        const act = async (tx: Transaction) => ({
          status: 202,
          location: '',
          body: { operation_id: await actOnInstance(forRequest(ctx, request), tx, id, action, request.body) },
        })
        return answerPost(ctx, request, reply, act, { makesRoom: action === 'stop' })
      },
    )
  }

  api.get(
    '/v1/instances/:id/console-log',
    {
      schema: {
        operationId: 'getInstanceConsoleLog',
        summary: 'Serial output of an instance, the last 256 KiB',
        tags,
        params: Params,
        querystring: ConsoleLogQuery,
        produces: ['text/plain'],
        response: { 200: Type.String(), ...problems('invalid_path', 'not_found') },
      },
    },
    async (request, reply) => {
      const text = await readConsoleLog(ctx, request.params.id, request.query.tail)
      // a guest writes what it likes: nothing may take it for a page
      return reply.type('text/plain; charset=utf-8').header('x-content-type-options', 'nosniff').send(text)
    },
  )

  api.get(
    '/v1/instances/:id/metrics',
    {
      schema: {
        operationId: 'getInstanceMetrics',
        summary: 'Show what an instance uses, as its host last counted it',
        tags,
        params: Params,
        response: { 200: ref(InstanceMetrics), ...problems('not_found') },
      },
    },
    (request) => readInstanceMetrics(ctx, request.params.id),
  )
}
