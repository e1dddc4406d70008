import { Host, HostList, HostPatch } from '@berth/contract/hosts/hosts.ts'
import type { Context } from '../context.ts'
import { patchHost, readHost, readHosts } from '../domain/hosts/hosts.ts'
import type { Api } from '../http/api.ts'
import { withLabels } from './conventions/list-page.ts'
import { patchRoute, readRoutes } from './conventions/resource-routes.ts'

/** /v1/hosts */
export function hostRoutes(api: Api, ctx: Context): void {
  readRoutes(api, {
    plural: 'hosts',
    noun: 'Host',
    one: Host,
    many: HostList,
    get: (id) => readHost(ctx, id),
    list: (filter, page) => readHosts(ctx, withLabels(filter), page),
  })
  patchRoute(api, {
    plural: 'hosts',
    noun: 'Host',
    aNoun: 'a host: cordon it, name it, label it',
    one: Host,
    patchBody: HostPatch,
    patch: (id, body: HostPatch, ifMatch) => patchHost(ctx, id, body, ifMatch),
  })
}
