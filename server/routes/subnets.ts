import { ref } from '@berth/contract/schema.ts'
import { Subnet, SubnetCreate, SubnetList } from '@berth/contract/subnets.ts'
import type { Context } from '../context.ts'
import { createSubnet, deleteSubnet, readSubnet, readSubnets } from '../domain/subnets.ts'
import type { Api } from './api.ts'
import { NoContent, problems } from './problems.ts'
import { IdParams, readRoutes } from './read-routes.ts'

const tags = ['subnets']

/** /v1/subnets */
export function subnetRoutes(api: Api, ctx: Context): void {
  readRoutes(api, {
    plural: 'subnets',
    noun: 'Subnet',
    one: Subnet,
    many: SubnetList,
    get: (id) => readSubnet(ctx, id),
    list: () => readSubnets(ctx),
  })

  api.post(
    '/v1/subnets',
    {
      schema: {
        operationId: 'createSubnet',
        summary: 'Create a subnet',
        tags,
        body: ref(SubnetCreate),
        response: {
          201: ref(Subnet),
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
      const created = await createSubnet(ctx, request.body)
      return reply.code(201).header('location', `/v1/subnets/${created.id}`).send(created)
    },
  )

  api.delete(
    '/v1/subnets/:id',
    {
      schema: {
        operationId: 'deleteSubnet',
        summary: 'Delete a subnet that nothing uses',
        tags,
        params: IdParams,
        response: { 204: NoContent, ...problems('invalid_path', 'not_found', 'in_use') },
      },
    },
    async (request, reply) => {
      await deleteSubnet(ctx, request.params.id)
      return reply.code(204).send(null)
    },
  )
}
