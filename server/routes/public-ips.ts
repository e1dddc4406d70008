import {
  PublicIp,
  PublicIpCreate,
  PublicIpList,
  PublicIpListQuery,
  PublicIpPatch,
} from '@berth/contract/networks/public-ips.ts'
import type { Context } from '../context.ts'
import {
  createPublicIp,
  deletePublicIp,
  patchPublicIp,
  readPublicIp,
  readPublicIps,
} from '../domain/networks/public-ips.ts'
import type { Api } from '../http/api.ts'
import { withLabels } from './conventions/list-page.ts'
import { type ListFilter, ownedRoutes } from './conventions/resource-routes.ts'

/** /v1/public-ips */
export function publicIpRoutes(api: Api, ctx: Context): void {
  ownedRoutes(api, ctx, {
    plural: 'public-ips',
    noun: 'PublicIp',
    aNoun: 'a public address',
    one: PublicIp,
    many: PublicIpList,
    query: PublicIpListQuery,
    body: PublicIpCreate,
    patchBody: PublicIpPatch,
    createProblems: ['no_public_addresses', 'invalid_state'],
    ownPatchProblems: ['invalid_state'],
    get: (id) => readPublicIp(ctx, id),
    list: (filter: ListFilter & { instance_id?: string; pool?: string }, page) =>
      readPublicIps(ctx, withLabels(filter), page),
    create: (tx, body: PublicIpCreate) => createPublicIp(ctx, tx, body),
    patch: (id, body: PublicIpPatch, ifMatch) => patchPublicIp(ctx, id, body, ifMatch),
    remove: (id) => deletePublicIp(ctx, id),
  })
}
