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
    about: 'An SSH key is a public key that instances can be created with.',
    aboutChange: 'Name and labels can be changed; the key itself is for good.',
    aboutCreate:
      '`public_key` is one line as in a `.pub` file: Ed25519, ECDSA, RSA of at least 2,048 bits, or of a security ' +
      'key. What sshd of a guest would not take, and a private key, are 422. It is kept in one form: type, base64, ' +
      'comment.',
    aboutDelete:
      'An SSH key is used by the instances that were created with it, until they are terminated. It stays in the ' +
      'disks of those that have it.',
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
