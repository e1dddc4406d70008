import { Subnet, SubnetCreate, SubnetList, SubnetListQuery, SubnetPatch } from '@berth/contract/networks/subnets.ts'
import type { Context } from '../context.ts'
import { createSubnet, deleteSubnet, patchSubnet, readSubnet, readSubnets } from '../domain/networks/subnets.ts'
import type { Api } from '../http/api.ts'
import { withLabels } from './conventions/list-page.ts'
import { type ListFilter, ownedRoutes } from './conventions/resource-routes.ts'

/** /v1/subnets */
export function subnetRoutes(api: Api, ctx: Context): void {
  ownedRoutes(api, ctx, {
    plural: 'subnets',
    noun: 'Subnet',
    aNoun: 'a subnet',
    one: Subnet,
    many: SubnetList,
    query: SubnetListQuery,
    body: SubnetCreate,
    patchBody: SubnetPatch,
    get: (id) => readSubnet(ctx, id),
    list: (filter: ListFilter & { vpc_id?: string }, page) => readSubnets(ctx, withLabels(filter), page),
    create: (tx, body: SubnetCreate) => createSubnet(ctx, tx, body),
    patch: (id, body: SubnetPatch, ifMatch) => patchSubnet(ctx, id, body, ifMatch),
    remove: (id) => deleteSubnet(ctx, id),
  })
}
