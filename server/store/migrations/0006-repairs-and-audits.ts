import { type Kysely, sql } from 'kysely'
import type { Migration } from 'kysely/migration'
import type { ColumnTypes } from '../engine/engine.ts'

/** Which repairs of its networks a host has told of, and what it last found left over. */
export function repairsAndAudits(types: ColumnTypes): Migration {
  const { integer } = types
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema
        .createTable('host_audits')
        .modifyEnd(sql.raw(types.tableOptions))
        .addColumn('host_id', 'text', (c) => c.primaryKey().notNull().references('hosts.id'))
        .addColumn('audited_at', integer, (c) => c.notNull())
        .addColumn('orphans', 'text', (c) => c.notNull())
        .execute()
      await db.schema
        .alterTable('hosts')
        .addColumn('last_repair', integer, (c) => c.notNull().defaultTo(0))
        .execute()
    },
  }
}
