import type { Kysely } from 'kysely'
import type { Migration } from 'kysely/migration'

/** Lists of one name go along an index, in the order of the ids. */
export function names(): Migration {
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const table of ['hosts', 'vpcs', 'subnets', 'security_groups', 'ssh_keys', 'public_ips']) {
        await db.schema.createIndex(`${table}_name`).on(table).columns(['name', 'id']).execute()
      }
    },
  }
}
