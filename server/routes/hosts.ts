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
    about:
      'A host is a machine that runs instances. It is there from the first connection of its agent on; ' +
      '`status.state` is `unreachable` while nothing is heard of it, which says nothing of its instances. ' +
      '`allocated` is what is reserved of its `capacity`.',
    one: Host,
    many: HostList,
    get: (id) => readHost(ctx, id),
    list: (filter, page) => readHosts(ctx, withLabels(filter), page),
  })
  patchRoute(api, {
    plural: 'hosts',
    noun: 'Host',
    aNoun: 'a host: cordon it, name it, label it',
    aboutChange:
      'Name, labels and `spec.schedulable` can be changed. With `schedulable: false` nothing new is placed ' +
      'there; what is there stays and can be started again.',
    one: Host,
    patchBody: HostPatch,
    patch: (id, body: HostPatch, ifMatch) => patchHost(ctx, id, body, ifMatch),
  })
}
