import { type Kysely, sql } from 'kysely'
import type { Migration } from 'kysely/migration'
import type { ColumnTypes } from '../engine/engine.ts'

/**
 * The change feed, the answers bound to idempotency keys, generations of the smaller resources, and what lists filter
 * by in indexes that keep the order of the ids.
 */
export function eventsAndKeys(types: ColumnTypes): Migration {
  const { integer } = types
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      const table = (name: string) => db.schema.createTable(name).modifyEnd(sql.raw(types.tableOptions))
      await table('events')
        .addColumn('sequence', types.serial, (c) =>
          types.serial === 'integer' ? c.primaryKey().autoIncrement() : c.primaryKey(),
        )
        .addColumn('at', integer, (c) => c.notNull())
        .addColumn('type', 'text', (c) => c.notNull())
        .addColumn('resource_id', 'text', (c) => c.notNull())
        .addColumn('detail', 'text', (c) => c.notNull())
        .execute()

      await table('idempotency_keys')
        .addColumn('key', 'text', (c) => c.primaryKey().notNull())
        .addColumn('fingerprint', 'text', (c) => c.notNull())
        .addColumn('status', integer, (c) => c.notNull())
        .addColumn('location', 'text', (c) => c.notNull())
        .addColumn('body', 'text', (c) => c.notNull())
        .addColumn('created_at', integer, (c) => c.notNull())
        .execute()
      await db.schema.createIndex('idempotency_keys_age').on('idempotency_keys').column('created_at').execute()

      for (const resource of ['vpcs', 'subnets', 'security_groups', 'ssh_keys']) {
        await db.schema
          .alterTable(resource)
          .addColumn('generation', integer, (c) => c.notNull().defaultTo(1))
          .execute()
      }

      for (const [column, type, initial] of [
        ['state', 'text', 'provisioning'],
        ['on_capacity', 'text', 'queue'],
        ['metadata_revision', integer, 0],
      ] as const) {
        await db.schema
          .alterTable('instances')
          .addColumn(column, type, (c) => c.notNull().defaultTo(initial))
          .execute()
      }
      await fillStates(db)
      await letGoOfNetworks(db, types)
      for (const column of ['host_id', 'vpc_id', 'subnet_id', 'name'] as const) {
        await db.schema.createIndex(`instances_${column}`).on('instances').columns([column, 'id']).execute()
      }
      await db.schema.createIndex('instances_state').on('instances').columns(['state', 'id']).execute()
      await db.schema.createIndex('instance_labels_key').on('instance_labels').columns(['key', 'instance_id']).execute()
      await db.schema.dropIndex('subnet_addresses_freed').execute()
      await db.schema
        .createIndex('subnet_addresses_freed')
        .on('subnet_addresses')
        .columns(['subnet_id', 'freed_at'])
        .where(sql.ref('instance_id'), 'is', null)
        .execute()
      await db.schema.createIndex('operations_status').on('operations').columns(['status', 'id']).execute()
    },
  }
}

interface InstanceBefore {
  id: string
  desired: string
  report: string | null
  host_id: string | null
  terminated_at: number | null
}

/**
 * A tombstone must not keep its VPC and subnet from being deleted: the foreign keys of instances to them go. SQLite can
 * only make the table anew for that.
 */
async function letGoOfNetworks(db: Kysely<unknown>, types: ColumnTypes): Promise<void> {
  for (const column of ['host_id', 'vpc_id', 'subnet_id', 'name', 'terminated_at']) {
    await db.schema.dropIndex(`instances_${column}`).execute()
  }
  if (types.dialect === 'postgres') {
    for (const column of ['vpc_id', 'subnet_id']) {
      await db.schema.alterTable('instances').dropConstraint(`instances_${column}_fkey`).execute()
    }
  } else {
    const { rows } = await sql<{ sql: string }>`
      select sql from sqlite_schema where type = 'table' and name = 'instances'`.execute(db)
    const definition = (rows[0]?.sql ?? '')
      .replace(/^create table "instances"/i, 'create table "instances_next"')
      .replaceAll(/ references "(?:vpcs|subnets)" \("id"\)/g, '')
    await sql.raw(definition).execute(db)
    await sql`insert into instances_next select * from instances`.execute(db)
    await sql`drop table instances`.execute(db)
    await sql`alter table instances_next rename to instances`.execute(db)
  }
  await db.schema.createIndex('instances_terminated_at').on('instances').column('terminated_at').execute()
}

/** As the table in contract/instances/states.ts stood with this schema; a migration must not follow its later changes. */
async function fillStates(db: Kysely<unknown>): Promise<void> {
  const { rows } = await sql<InstanceBefore>`select id, desired, report, host_id, terminated_at from instances`.execute(
    db,
  )
  for (const row of rows) {
    await sql`update instances set state = ${stateBefore(row)} where id = ${row.id}`.execute(db)
  }
}

function stateBefore(row: InstanceBefore): string {
  if (row.terminated_at !== null) return 'terminated'
  const power: unknown = row.report === null ? null : JSON.parse(row.report).power
  switch (row.desired) {
    case 'running':
      return power === 'running' ? 'running' : 'provisioning'
    case 'stopped':
      return power === null || power === 'off' || power === 'absent' ? 'stopped' : 'stopping'
    default:
      return power === 'absent' || (power === null && row.host_id === null) ? 'terminated' : 'stopping'
  }
}
