import { type Kysely, sql } from 'kysely'
import type { Migration } from 'kysely/migration'
import type { ColumnTypes } from '../engine/engine.ts'

/** Images that are made through the API, which live instances an image has, and which hosts were said to be silent. */
export function images(types: ColumnTypes): Migration {
  const { integer } = types
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema
        .createTable('images')
        .modifyEnd(sql.raw(types.tableOptions))
        .addColumn('id', 'text', (c) => c.primaryKey().notNull())
        .addColumn('name', 'text', (c) => c.notNull())
        .addColumn('labels', 'text', (c) => c.notNull())
        .addColumn('created_at', integer, (c) => c.notNull())
        .addColumn('generation', integer, (c) => c.notNull())
        .addColumn('title', 'text', (c) => c.notNull())
        .addColumn('source_url', 'text', (c) => c.notNull())
        .addColumn('sha256', 'text', (c) => c.notNull())
        .addColumn('min_disk_gb', integer, (c) => c.notNull())
        .addColumn('default_user', 'text', (c) => c.notNull())
        .addColumn('network', 'text', (c) => c.notNull())
        .addColumn('datasource', 'text', (c) => c.notNull())
        .execute()
      await db.schema
        .alterTable('hosts')
        .addColumn('silent', integer, (c) => c.notNull().defaultTo(0))
        .execute()
      await db.schema
        .createIndex('instances_image')
        .on('instances')
        .columns(['image', 'id'])
        .where(sql.ref('terminated_at'), 'is', null)
        .execute()
    },
  }
}
