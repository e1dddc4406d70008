import { SshKey, SshKeyCreate, SshKeyList } from '@berth/contract/ssh-keys.ts'
import type { Context } from '../context.ts'
import { createSshKey, deleteSshKey, readSshKey, readSshKeys } from '../domain/ssh-keys.ts'
import type { Api } from './api.ts'
import { ownedRoutes } from './resource-routes.ts'

/** /v1/ssh-keys */
export function sshKeyRoutes(api: Api, ctx: Context): void {
  ownedRoutes(api, {
    plural: 'ssh-keys',
    noun: 'SshKey',
    aNoun: 'an SSH key',
    one: SshKey,
    many: SshKeyList,
    body: SshKeyCreate,
    get: (id) => readSshKey(ctx, id),
    list: () => readSshKeys(ctx),
    create: (body: SshKeyCreate) => createSshKey(ctx, body),
    remove: (id) => deleteSshKey(ctx, id),
  })
}
