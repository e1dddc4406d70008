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
    about:
      'A subnet is a part of the address range of its VPC, from which instances get their private addresses. ' +
      '`status.available_addresses` is what is left of it.',
    aboutChange:
      'Name, labels and `auto_assign_public_ip` can be changed. The latter holds for instances that are created ' +
      'from then on.',
    aboutCreate:
      'Its CIDR lies inside that of its VPC and overlaps no other subnet there. The first four addresses and the ' +
      "last one are no instance's.",
    aboutDelete: 'A subnet is used by its instances until they are terminated.',
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
