import type { Kysely } from 'kysely'
import type { Migration } from 'kysely/migration'

/** What tells a resource from another one that had its id before. Those that are there already go without. */
export function resourceUids(): Migration {
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const table of ['hosts', 'vpcs', 'subnets', 'security_groups', 'ssh_keys', 'images', 'public_ips']) {
        await db.schema
          .alterTable(table)
          .addColumn('uid', 'text', (c) => c.notNull().defaultTo(''))
          .execute()
      }
    },
  }
}
