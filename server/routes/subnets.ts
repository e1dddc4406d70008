import { Subnet, SubnetCreate, SubnetList } from '@berth/contract/subnets.ts'
import type { Context } from '../context.ts'
import { createSubnet, deleteSubnet, readSubnet, readSubnets } from '../domain/subnets.ts'
import type { Api } from './api.ts'
import { ownedRoutes } from './resource-routes.ts'

/** /v1/subnets */
export function subnetRoutes(api: Api, ctx: Context): void {
  ownedRoutes(api, {
    plural: 'subnets',
    noun: 'Subnet',
    aNoun: 'a subnet',
    one: Subnet,
    many: SubnetList,
    body: SubnetCreate,
    get: (id) => readSubnet(ctx, id),
    list: () => readSubnets(ctx),
    create: (body: SubnetCreate) => createSubnet(ctx, body),
    remove: (id) => deleteSubnet(ctx, id),
  })
}
