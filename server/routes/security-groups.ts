import {
  SecurityGroup,
  SecurityGroupCreate,
  SecurityGroupList,
  SecurityGroupPatch,
} from '@berth/contract/networks/security-groups.ts'
import type { Context } from '../context.ts'
import {
  createSecurityGroup,
  deleteSecurityGroup,
  patchSecurityGroup,
  readSecurityGroup,
  readSecurityGroups,
} from '../domain/networks/security-groups.ts'
import type { Api } from '../http/api.ts'
import { withLabels } from './conventions/list-page.ts'
import { ownedRoutes } from './conventions/resource-routes.ts'

/** /v1/security-groups */
export function securityGroupRoutes(api: Api, ctx: Context): void {
  ownedRoutes(api, ctx, {
    plural: 'security-groups',
    noun: 'SecurityGroup',
    aNoun: 'a security group',
    one: SecurityGroup,
    many: SecurityGroupList,
    body: SecurityGroupCreate,
    patchBody: SecurityGroupPatch,
    get: (id) => readSecurityGroup(ctx, id),
    list: (filter, page) => readSecurityGroups(ctx, withLabels(filter), page),
    create: (tx, body: SecurityGroupCreate) => createSecurityGroup(ctx, tx, body),
    patch: (id, body: SecurityGroupPatch, ifMatch) => patchSecurityGroup(ctx, id, body, ifMatch),
    remove: (id) => deleteSecurityGroup(ctx, id),
  })
}
