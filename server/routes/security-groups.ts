import { SecurityGroup, SecurityGroupList } from '@berth/contract/security-groups.ts'
import type { Context } from '../context.ts'
import { readSecurityGroup, readSecurityGroups } from '../domain/security-groups.ts'
import type { Api } from './api.ts'
import { readRoutes } from './resource-routes.ts'

/** /v1/security-groups */
export function securityGroupRoutes(api: Api, ctx: Context): void {
  readRoutes(api, {
    plural: 'security-groups',
    noun: 'SecurityGroup',
    one: SecurityGroup,
    many: SecurityGroupList,
    get: (id) => readSecurityGroup(ctx, id),
    list: () => readSecurityGroups(ctx),
  })
}
