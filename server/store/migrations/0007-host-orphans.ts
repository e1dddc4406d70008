import type { Kysely } from 'kysely'
import type { Migration } from 'kysely/migration'

/** What hosts find left over is called orphans: "audit" is the word for who did what. */
export function hostOrphans(): Migration {
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema.alterTable('host_audits').renameTo('host_orphans').execute()
      await db.schema.alterTable('host_orphans').renameColumn('audited_at', 'looked_at').execute()
    },
  }
}
