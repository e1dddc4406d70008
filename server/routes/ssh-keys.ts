import { ref } from '@berth/contract/schema.ts'
import { SshKey, SshKeyCreate, SshKeyList } from '@berth/contract/ssh-keys.ts'
import type { Context } from '../context.ts'
import { createSshKey, deleteSshKey, readSshKey, readSshKeys } from '../domain/ssh-keys.ts'
import type { Api } from './api.ts'
import { NoContent, problems } from './problems.ts'
import { IdParams, readRoutes } from './read-routes.ts'

const tags = ['ssh-keys']

/** /v1/ssh-keys */
export function sshKeyRoutes(api: Api, ctx: Context): void {
  readRoutes(api, {
    plural: 'ssh-keys',
    noun: 'SshKey',
    one: SshKey,
    many: SshKeyList,
    get: (id) => readSshKey(ctx, id),
    list: () => readSshKeys(ctx),
  })

  api.post(
    '/v1/ssh-keys',
    {
      schema: {
        operationId: 'createSshKey',
        summary: 'Create an SSH key',
        tags,
        body: ref(SshKeyCreate),
        response: {
          201: ref(SshKey),
          ...problems(
            'invalid_json',
            'already_exists',
            'body_too_large',
            'unsupported_media_type',
            'validation_failed',
          ),
        },
      },
    },
    async (request, reply) => {
      const created = await createSshKey(ctx, request.body)
      return reply.code(201).header('location', `/v1/ssh-keys/${created.id}`).send(created)
    },
  )

  api.delete(
    '/v1/ssh-keys/:id',
    {
      schema: {
        operationId: 'deleteSshKey',
        summary: 'Delete an SSH key that nothing uses',
        tags,
        params: IdParams,
        response: { 204: NoContent, ...problems('invalid_path', 'not_found', 'in_use') },
      },
    },
    async (request, reply) => {
      await deleteSshKey(ctx, request.params.id)
      return reply.code(204).send(null)
    },
  )
}
