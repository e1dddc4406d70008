import { type Kysely, sql } from 'kysely'
import type { Migration } from 'kysely/migration'

/** What is done with a machine whose boot ends by a panic; those that are there already are started again. */
export function onPanic(): Migration {
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema
        .alterTable('instances')
        .addColumn('on_panic', 'text', (c) =>
          c.notNull().defaultTo('restart').check(sql`on_panic in ('restart', 'stop', 'none')`),
        )
        .execute()
    },
  }
}
