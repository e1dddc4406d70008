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
    about:
      'A VPC is a private network: its instances reach each other over all of its subnets, and nothing of ' +
      'another VPC but by public addresses.',
    aboutChange: 'Name and labels can be changed; the CIDR is for good.',
    aboutCreate:
      'It is an address range for subnets; `spec.cidr` is from /16 to /28 of private addresses, and two VPCs may ' +
      'have the same. Nothing is made on hosts before an instance is there.',
    aboutDelete: 'A VPC is used by its subnets.',
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
