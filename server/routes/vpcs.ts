import { Vpc, VpcCreate, VpcList } from '@berth/contract/vpcs.ts'
import type { Context } from '../context.ts'
import { createVpc, deleteVpc, readVpc, readVpcs } from '../domain/vpcs.ts'
import type { Api } from './api.ts'
import { ownedRoutes } from './resource-routes.ts'

/** /v1/vpcs */
export function vpcRoutes(api: Api, ctx: Context): void {
  ownedRoutes(api, {
    plural: 'vpcs',
    noun: 'Vpc',
    aNoun: 'a VPC',
    one: Vpc,
    many: VpcList,
    body: VpcCreate,
    get: (id) => readVpc(ctx, id),
    list: () => readVpcs(ctx),
    create: (body: VpcCreate) => createVpc(ctx, body),
    remove: (id) => deleteVpc(ctx, id),
  })
}
