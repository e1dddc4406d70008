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
    about:
      'A security group is a set of rules that let packets to and from its instances; what no rule of any of its ' +
      'groups lets through is dropped, and answers to what was let through pass.',
    aboutChange:
      'Name, labels, description and rules can be changed; `rules` replaces all of them. Hosts load new rules ' +
      'within moments, and they act on open connections too. An instance whose host could not load them says so ' +
      'in its condition `NetworkReady`.',
    aboutCreate:
      'Without rules it lets nothing in and nothing out. A rule is for one direction and protocol, for a range ' +
      'of ports or all, and for a remote: a CIDR or the members of a group.',
    aboutDelete: 'A security group is used by its instances and by rules of other groups that name it.',
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
