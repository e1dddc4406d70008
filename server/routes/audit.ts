import { OrphanList } from '@berth/contract/audit.ts'
import { ref } from '@berth/contract/schema.ts'
import type { Context } from '../context.ts'
import { readOrphans } from '../domain/audit.ts'
import type { Api } from './api.ts'
import { problems } from './problems.ts'

/** GET /v1/audit/orphans */
export function auditRoutes(api: Api, ctx: Context): void {
  api.get(
    '/v1/audit/orphans',
    {
      schema: {
        operationId: 'listOrphans',
        summary: 'What exists and nothing explains',
        description:
          'Leftovers of the database, as it is now, and of the hosts, as each last looked (`hosts[].audited_at`, once a ' +
          'minute). Empty unless something went wrong. At most 100 of each kind of the database and 1000 of each host.',
        tags: ['hosts'],
        response: { 200: ref(OrphanList), ...problems() },
      },
    },
    async () => readOrphans(ctx),
  )
}
