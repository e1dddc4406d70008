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
    about:
      'A public address is one of a pool of this server. Attached to an instance, it is where that is reached ' +
      'from outside, and where its packets to the outside come from.',
    aboutChange:
      'Name and labels can be changed, and `spec.instance_id`: an instance attaches the address or moves it ' +
      'there, "" detaches it. It is in force when the `observed_generation` of the instances is their ' +
      '`generation`. An address that came with its instance is allocated for good from then on. An instance that ' +
      'is being deleted is 409 `invalid_state`; one that has another address is 422.',
    aboutCreate:
      'It allocates a free address of `spec.pool`, the first pool unless named, and attaches it when an instance ' +
      'is named; one that came with that instance is released. A pool without a free address is 422 ' +
      '`no_public_addresses`; an instance that is being deleted is 409 `invalid_state`.',
    aboutDelete:
      'A public address is used by the instance it is attached to; detach it first. One that came with its ' +
      'instance is no longer its own and released at once.',
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
