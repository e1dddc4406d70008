import { type Kysely, sql } from 'kysely'
import type { Migration } from 'kysely/migration'
import type { ColumnTypes } from '../engine/engine.ts'

/** Public addresses: the resource, which addresses were handed out, who has which, and subnets that give them. */
export function publicAddresses(types: ColumnTypes): Migration {
  const { integer } = types
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      const table = (name: string) => db.schema.createTable(name).modifyEnd(sql.raw(types.tableOptions))
      await table('public_ips')
        .addColumn('id', 'text', (c) => c.primaryKey().notNull())
        .addColumn('name', 'text', (c) => c.notNull())
        .addColumn('labels', 'text', (c) => c.notNull())
        .addColumn('created_at', integer, (c) => c.notNull())
        .addColumn('pool', 'text', (c) => c.notNull())
        .addColumn('address', 'text', (c) => c.notNull().unique())
        .addColumn('instance_id', 'text', (c) => c.unique().references('instances.id'))
        .addColumn('auto_assigned', integer, (c) => c.notNull())
        .addColumn('generation', integer, (c) => c.notNull())
        .execute()

      await table('public_addresses')
        .addColumn('number', integer, (c) => c.primaryKey().notNull())
        .addColumn('public_ip_id', 'text', (c) => c.unique())
        .addColumn('freed_at', integer, (c) => c.notNull())
        .execute()
      await db.schema
        .createIndex('public_addresses_freed')
        .on('public_addresses')
        .column('freed_at')
        .where(sql.ref('public_ip_id'), 'is', null)
        .execute()

      await db.schema
        .alterTable('instances')
        .addColumn('public_ip', 'text', (c) => c.notNull().defaultTo(''))
        .execute()
      await db.schema
        .createIndex('instances_public_ip')
        .unique()
        .on('instances')
        .column('public_ip')
        .where(sql.ref('public_ip'), '!=', '')
        .execute()

      await db.schema
        .alterTable('subnets')
        .addColumn('auto_assign_public_ip', integer, (c) => c.notNull().defaultTo(0))
        .execute()
    },
  }
}
