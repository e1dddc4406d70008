import { Vpc, VpcCreate, VpcList, VpcPatch } from '@berth/contract/networks/vpcs.ts'
import type { Context } from '../context.ts'
import { createVpc, deleteVpc, patchVpc, readVpc, readVpcs } from '../domain/networks/vpcs.ts'
import type { Api } from '../http/api.ts'
import { withLabels } from './conventions/list-page.ts'
import { ownedRoutes } from './conventions/resource-routes.ts'

/** /v1/vpcs */
export function vpcRoutes(api: Api, ctx: Context): void {
  ownedRoutes(api, ctx, {
    plural: 'vpcs',
    noun: 'Vpc',
    aNoun: 'a VPC',
    one: Vpc,
    many: VpcList,
    body: VpcCreate,
    patchBody: VpcPatch,
    get: (id) => readVpc(ctx, id),
    list: (filter, page) => readVpcs(ctx, withLabels(filter), page),
    create: (tx, body: VpcCreate) => createVpc(ctx, tx, body),
    patch: (id, body: VpcPatch, ifMatch) => patchVpc(ctx, id, body, ifMatch),
    remove: (id) => deleteVpc(ctx, id),
  })
}
