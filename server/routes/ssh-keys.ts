import { SshKey, SshKeyCreate, SshKeyList, SshKeyPatch } from '@berth/contract/instances/ssh-keys.ts'
import type { Context } from '../context.ts'
import { createSshKey, deleteSshKey, patchSshKey, readSshKey, readSshKeys } from '../domain/instances/ssh-keys.ts'
import type { Api } from '../http/api.ts'
import { withLabels } from './conventions/list-page.ts'
import { ownedRoutes } from './conventions/resource-routes.ts'

/** /v1/ssh-keys */
export function sshKeyRoutes(api: Api, ctx: Context): void {
  ownedRoutes(api, ctx, {
    plural: 'ssh-keys',
    noun: 'SshKey',
    aNoun: 'an SSH key',
    one: SshKey,
    many: SshKeyList,
    body: SshKeyCreate,
    patchBody: SshKeyPatch,
    get: (id) => readSshKey(ctx, id),
    list: (filter, page) => readSshKeys(ctx, withLabels(filter), page),
    create: (tx, body: SshKeyCreate) => createSshKey(ctx, tx, body),
    patch: (id, body: SshKeyPatch, ifMatch) => patchSshKey(ctx, id, body, ifMatch),
    remove: (id) => deleteSshKey(ctx, id),
  })
}
