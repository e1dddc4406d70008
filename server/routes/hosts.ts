import { Host, HostList } from '@berth/contract/hosts.ts'
import type { Context } from '../context.ts'
import { readHost, readHosts } from '../domain/hosts.ts'
import type { Api } from './api.ts'
import { readRoutes } from './resource-routes.ts'

/** /v1/hosts */
export function hostRoutes(api: Api, ctx: Context): void {
  readRoutes(api, {
    plural: 'hosts',
    noun: 'Host',
    one: Host,
    many: HostList,
    get: (id) => readHost(ctx, id),
    list: () => readHosts(ctx),
  })
}
