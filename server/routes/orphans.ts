import { OrphanList } from '@berth/contract/hosts/orphans.ts'
import { ref } from '@berth/contract/schema.ts'
import type { Context } from '../context.ts'
import { readOrphans } from '../domain/hosts/orphans.ts'
import type { Api } from '../http/api.ts'
import { problems } from '../http/problems.ts'

/** GET /v1/orphans */
export function orphanRoutes(api: Api, ctx: Context): void {
  api.get(
    '/v1/orphans',
    {
      schema: {
        operationId: 'listOrphans',
        summary: 'What exists and nothing explains',
        description:
          'Leftovers of the database, as it is now, and of the hosts, as each last looked (`hosts[].looked_at`, once a ' +
          'minute). Empty unless something went wrong. At most 100 of each kind of the database and 1000 of each host.',
        tags: ['hosts'],
        response: { 200: ref(OrphanList), ...problems() },
      },
    },
    async () => readOrphans(ctx),
  )
}
