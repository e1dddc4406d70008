import { type Kysely, sql } from 'kysely'
import type { Migration } from 'kysely/migration'
import type { ColumnTypes } from '../engine/engine.ts'

/** What the instances of each host use; the last look only. */
export function hostUsage(types: ColumnTypes): Migration {
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema
        .createTable('host_usage')
        .addColumn('host_id', 'text', (c) => c.primaryKey().notNull().references('hosts.id'))
        .addColumn('figures', 'text', (c) => c.notNull())
        .modifyEnd(sql.raw(types.tableOptions))
        .execute()
    },
  }
}
