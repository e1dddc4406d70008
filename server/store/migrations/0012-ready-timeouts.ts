import type { Kysely } from 'kysely'
import type { Migration } from 'kysely/migration'

/** How long guests of an image have for their first boot; null, as for those that are there already, is the default. */
export function readyTimeouts(): Migration {
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema.alterTable('images').addColumn('ready_timeout_seconds', 'integer').execute()
    },
  }
}
