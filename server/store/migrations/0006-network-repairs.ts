import type { Kysely } from 'kysely'
import type { Migration } from 'kysely/migration'
import type { ColumnTypes } from '../engine.ts'

/** Which repairs of its networks a host has told of. */
export function networkRepairs({ integer }: ColumnTypes): Migration {
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema
        .alterTable('hosts')
        .addColumn('last_repair', integer, (c) => c.notNull().defaultTo(0))
        .execute()
    },
  }
}
