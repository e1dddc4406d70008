import { ref } from '@berth/contract/schema.ts'
import { Vpc, VpcCreate, VpcList } from '@berth/contract/vpcs.ts'
import type { Context } from '../context.ts'
import { createVpc, deleteVpc, readVpc, readVpcs } from '../domain/vpcs.ts'
import type { Api } from './api.ts'
import { NoContent, problems } from './problems.ts'
import { IdParams, readRoutes } from './read-routes.ts'

const tags = ['vpcs']

/** /v1/vpcs */
export function vpcRoutes(api: Api, ctx: Context): void {
  readRoutes(api, {
    plural: 'vpcs',
    noun: 'Vpc',
    one: Vpc,
    many: VpcList,
    get: (id) => readVpc(ctx, id),
    list: () => readVpcs(ctx),
  })

  api.post(
    '/v1/vpcs',
    {
      schema: {
        operationId: 'createVpc',
        summary: 'Create a VPC',
        tags,
        body: ref(VpcCreate),
        response: {
          201: ref(Vpc),
          ...problems(
            'invalid_json',
            'already_exists',
            'body_too_large',
            'unsupported_media_type',
            'validation_failed',
          ),
        },
      },
    },
    async (request, reply) => {
      const created = await createVpc(ctx, request.body)
      return reply.code(201).header('location', `/v1/vpcs/${created.id}`).send(created)
    },
  )

  api.delete(
    '/v1/vpcs/:id',
    {
      schema: {
        operationId: 'deleteVpc',
        summary: 'Delete a VPC that nothing uses',
        tags,
        params: IdParams,
        response: { 204: NoContent, ...problems('invalid_path', 'not_found', 'in_use') },
      },
    },
    async (request, reply) => {
      await deleteVpc(ctx, request.params.id)
      return reply.code(204).send(null)
    },
  )
}
