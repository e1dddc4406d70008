import { InstanceType, InstanceTypeList } from '@berth/contract/instances/instance-types.ts'
import { ApiError } from '../api-error.ts'
import type { Context } from '../context.ts'
import type { Api } from '../http/api.ts'
import { PageQuery, pageInMemory, readRoutes } from './conventions/resource-routes.ts'

/** /v1/instance-types */
export function instanceTypeRoutes(api: Api, ctx: Context): void {
  readRoutes(api, {
    plural: 'instance-types',
    noun: 'InstanceType',
    about:
      'An instance type is a size: vCPUs, memory, disk and bandwidth. They come from a file of the server, which ' +
      'reads it at its start.',
    one: InstanceType,
    many: InstanceTypeList,
    get: async (id) => {
      const type = ctx.instanceTypes.get(id)
      if (type === undefined) throw new ApiError('not_found', `There is no instance type ${id}.`)
      return { document: type, etag: null } // nobody changes it
    },
    query: PageQuery,
    list: async (_filter, page) => pageInMemory([...ctx.instanceTypes.values()], page),
  })
}
