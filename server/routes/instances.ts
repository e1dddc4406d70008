import { pathIdPattern } from '@berth/contract/ids.ts'
import { graceSeconds } from '@berth/contract/instances/bounds.ts'
import {
  Accepted,
  ConsoleLogQuery,
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
import { keyRule, pagesRule, patchRule } from './conventions/descriptions.ts'
import { answerPage, withLabels } from './conventions/list-page.ts'
import { answerPost, postProblems } from './conventions/posts.ts'
import { patchProblems } from './conventions/resource-routes.ts'

const Params = Type.Object({ id: Type.String({ pattern: pathIdPattern }) })
const tags = ['instances']

const aboutActions = {
  start:
    'Has the instance run; its disk is as it was. Of one that runs, the operation has succeeded already; during a ' +
    'stop, that is given up, or the instance started again after it.',
  stop:
    'Has the instance off: the guest gets the power button and `grace_seconds` to shut down, or neither with `force`; ' +
    'then it is ended. What it uses stays reserved. Of one that is off, the operation has succeeded already; a second ' +
    'stop with a shorter grace shortens the first.',
  reboot:
    'Shuts the guest down as a stop does, and starts it again. The operation succeeds when the CPUs of the new boot ' +
    'run. Each reboot that is asked for is another one.',
} as const

const actionsRule =
  'The body may be left out. `operation_id` is the operation to follow; one that it replaces ends as `cancelled` with ' +
  'the code `superseded`. An instance that is being deleted, or whose state does not allow it, is 409 `invalid_state`.'

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
        description:
          'Stores what is wanted and answers 201 at once, with every default filled in and state `provisioning`; ' +
          'from then on a crash of any process loses nothing of it. `operation_id` is the operation that makes it, ' +
          'step by step; `GET /v1/instances/{id}?wait_for=ready` waits for it. An instance that cannot be made ends ' +
          'as `terminated`, with the cause in `status.reason` and in the operation.\n\nWithout a VPC and subnet it ' +
          'gets those of the project, without security groups the group `sg-default`. A reference to what is not ' +
          'there is 422 with a pointer to it, a full subnet 422 `no_addresses`, an image that is known to boot by ' +
          'UEFI only 422 `image_needs_uefi`. That no host has room is no error: the instance waits in the queue, or ' +
          'fails with `on_capacity: "fail"`. That no public address is free is none either: it is made without, and ' +
          '`status.reason` says so.\n\nWith `dry_run=true` everything is checked and nothing kept: 200 with the ' +
          'document as it would be and where it would be placed.\n\n' +
          keyRule,
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
        description:
          'Whole documents, as GET of each gives them. Terminated instances are there only with `state=terminated`, ' +
          'until they are forgotten, an hour after their end unless the server is set otherwise.\n\n' +
          pagesRule,
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
        description:
          'The document says what is wanted (`spec`), what is (`status.state`), how far each part is (`conditions`) ' +
          'and since when (`boot_timeline`). `running` says that its CPUs run; `GuestReady` whether its first boot ' +
          'is over and the user data was carried out. What was PATCHed is in force when `status.observed_generation` ' +
          'is `metadata.generation`. A terminated instance is readable for an hour, then 404.\n\nWith `wait_for` the ' +
          'answer comes when that holds, at once when it does already; the header `berth-wait` is `reached`, ' +
          '`impossible` when it cannot come any more (the instance is deleted, or stopped, or its first boot ' +
          'failed), or `timed-out` after `timeout` seconds. It is 200 in each case, with the document as it is. When ' +
          'too many requests wait already it is 429 `too_many_waits`.',
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
        description:
          'Labels count at once; name and security groups are in force when `status.observed_generation` is the ' +
          '`metadata.generation` of the answer, within moments and without a restart. A security group that is not ' +
          'there is 422. Of an instance whose deletion was asked for nothing can be changed: 409 ' +
          '`invalid_state`.\n\n' +
          patchRule,
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
        description:
          'Accepted in every state, also in the middle of a create, which it cancels, and with the host away: it is ' +
          'carried out when that comes back. The guest gets the power button and `grace_seconds` to shut down, then ' +
          'it is ended. Disk, private address, and a public address that came with it go; an attached one stays ' +
          'allocated.\n\nRepeated, it gives the operation of the deletion that is under way or has succeeded (a ' +
          'shorter grace counts); one that failed is begun anew.',
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
          description: `${aboutActions[action]} ${actionsRule}\n\n${keyRule}`,
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
        description:
          'What its serial console printed, over all boots, as text; the oldest goes first. It comes about once a ' +
          'second, also of an instance that is off, until that is forgotten. What is no UTF-8 is replaced. `tail` ' +
          'gives the last lines only.',
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
        description:
          'Counted by its host every 10 s while it runs; `at` is when. Totals begin at 0 again with each start of ' +
          'its machine. Of an instance that its host does not count at the moment all is 0 and `at` is "".',
        tags,
        params: Params,
        response: { 200: ref(InstanceMetrics), ...problems('not_found') },
      },
    },
    (request) => readInstanceMetrics(ctx, request.params.id),
  )
}
