import { pathIdPattern } from '@berth/contract/ids.ts'
import {
  Accepted,
  ConsoleLogQuery,
  graceSeconds,
  Instance,
  InstanceCreate,
  InstanceCreated,
  InstanceDeleteQuery,
  InstanceGetQuery,
  InstanceList,
  InstanceListQuery,
  PowerActionBody,
  StartBody,
} from '@berth/contract/instances.ts'
import { ref } from '@berth/contract/schema.ts'
import Type from 'typebox'
import type { Context } from '../context.ts'
import {
  actOnInstance,
  createInstance,
  deleteInstance,
  readConsoleLog,
  readInstance,
  readInstances,
} from '../domain/instances.ts'
import type { Api } from './api.ts'
import { callerSignal } from './caller-signal.ts'
import { decodeCursor, encodeCursor } from './cursor.ts'
import { problems } from './problems.ts'

const Params = Type.Object({ id: Type.String({ pattern: pathIdPattern }) })
const tags = ['instances']

/** /v1/instances */
export function instanceRoutes(api: Api, ctx: Context): void {
  api.post(
    '/v1/instances',
    {
      schema: {
        operationId: 'createInstance',
        summary: 'Create an instance',
        tags,
        body: ref(InstanceCreate),
        response: {
          201: ref(InstanceCreated),
          ...problems('invalid_json', 'body_too_large', 'unsupported_media_type', 'validation_failed', 'no_addresses'),
        },
      },
    },
    async (request, reply) => {
      const instance = await createInstance(ctx, request.body)
      return reply.code(201).header('location', `/v1/instances/${instance.id}`).send(instance)
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
    async (request) => {
      const { limit = 1000, cursor, ...filter } = request.query
      const after = cursor === undefined ? {} : { after: decodeCursor(cursor, filter) }
      const { items, more } = await readInstances(ctx, { limit, ...filter, ...after })
      const last = items.at(-1)
      return more && last !== undefined ? { items, next_cursor: encodeCursor(last.id, filter) } : { items }
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
        response: { 200: ref(Instance), ...problems('invalid_path', 'not_found') },
      },
    },
    async (request, reply) => {
      const { wait_for: target, timeout = 60 } = request.query
      const wait = target === undefined ? null : { target, timeoutSeconds: timeout }
      const { instance, outcome } = await readInstance(ctx, request.params.id, wait, callerSignal(reply))
      if (outcome !== null) reply.header('berth-wait', outcome)
      return instance
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
      return reply.code(202).send({ operation_id: await deleteInstance(ctx, request.params.id, grace) })
    },
  )

  for (const action of ['start', 'stop', 'reboot'] as const) {
    api.post(
      `/v1/instances/:id/${action}`,
      {
        preValidation: async (request) => {
          request.body ??= {} // the body of an action may be absent or empty
        },
        schema: {
          operationId: `${action}Instance`,
          summary: `${action.charAt(0).toUpperCase()}${action.slice(1)} an instance`,
          tags,
          params: Params,
          body: ref(action === 'start' ? StartBody : PowerActionBody),
          response: {
            202: ref(Accepted),
            ...problems(
              'invalid_path',
              'invalid_json',
              'not_found',
              'invalid_state',
              'body_too_large',
              'unsupported_media_type',
              'validation_failed',
            ),
          },
        },
      },
      async (request, reply) => {
        const id = await actOnInstance(ctx, request.params.id, action, request.body)
        return reply.code(202).send({ operation_id: id })
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
}
