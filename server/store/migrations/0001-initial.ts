import { type CreateTableBuilder, type Kysely, sql } from 'kysely'
import type { Migration } from 'kysely/migration'
import type { ColumnTypes } from '../engine/engine.ts'

/** First schema. */
export function initial(types: ColumnTypes): Migration {
  const { integer, bytes } = types
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      const table = (name: string) => db.schema.createTable(name).modifyEnd(sql.raw(types.tableOptions))
      const resource = (name: string): CreateTableBuilder<string, 'id' | 'name' | 'labels' | 'created_at'> =>
        table(name)
          .addColumn('id', 'text', (c) => c.primaryKey().notNull())
          .addColumn('name', 'text', (c) => c.notNull())
          .addColumn('labels', 'text', (c) => c.notNull())
          .addColumn('created_at', integer, (c) => c.notNull())

      await resource('hosts')
        .addColumn('schedulable', integer, (c) => c.notNull().defaultTo(1))
        .addColumn('generation', integer, (c) => c.notNull().defaultTo(1))
        .addColumn('desired_revision', integer, (c) => c.notNull().defaultTo(1))
        .addColumn('agent_session', integer, (c) => c.notNull().defaultTo(0))
        .addColumn('sequence', integer, (c) => c.notNull().defaultTo(0))
        .addColumn('agent_version', 'text', (c) => c.notNull().defaultTo(''))
        .addColumn('hypervisor', 'text', (c) => c.notNull().defaultTo(''))
        .addColumn('accelerator', 'text', (c) => c.notNull().defaultTo(''))
        .addColumn('accelerator_reason', 'text', (c) => c.notNull().defaultTo(''))
        .addColumn('capacity_vcpus', integer, (c) => c.notNull().defaultTo(0))
        .addColumn('capacity_memory_mb', integer, (c) => c.notNull().defaultTo(0))
        .addColumn('capacity_disk_gb', integer, (c) => c.notNull().defaultTo(0))
        .addColumn('allocated_vcpus', integer, (c) => c.notNull().defaultTo(0))
        .addColumn('allocated_memory_mb', integer, (c) => c.notNull().defaultTo(0))
        .addColumn('allocated_disk_gb', integer, (c) => c.notNull().defaultTo(0))
        .addColumn('images', 'text', (c) => c.notNull().defaultTo('[]'))
        .addColumn('last_seen_at', integer, (c) => c.notNull().defaultTo(0))
        .addCheckConstraint(
          'hosts_allocated_not_negative',
          sql`allocated_vcpus >= 0 and allocated_memory_mb >= 0 and allocated_disk_gb >= 0`,
        )
        .execute()

      await resource('vpcs')
        .addColumn('cidr', 'text', (c) => c.notNull())
        .addColumn('is_default', integer, (c) => c.notNull().defaultTo(0))
        .execute()

      await resource('subnets')
        .addColumn('vpc_id', 'text', (c) => c.notNull().references('vpcs.id'))
        .addColumn('cidr', 'text', (c) => c.notNull())
        .addColumn('next_offset', integer, (c) => c.notNull())
        .execute()
      await db.schema.createIndex('subnets_vpc').on('subnets').column('vpc_id').execute()

      await resource('security_groups')
        .addColumn('description', 'text', (c) => c.notNull())
        .addColumn('rules', 'text', (c) => c.notNull())
        .execute()

      await resource('ssh_keys')
        .addColumn('public_key', 'text', (c) => c.notNull())
        .addColumn('fingerprint', 'text', (c) => c.notNull())
        .execute()

      await resource('instances')
        .addColumn('type', 'text', (c) => c.notNull())
        .addColumn('image', 'text', (c) => c.notNull())
        .addColumn('vcpus', integer, (c) => c.notNull())
        .addColumn('memory_mb', integer, (c) => c.notNull())
        .addColumn('disk_gb', integer, (c) => c.notNull())
        .addColumn('vpc_id', 'text', (c) => c.notNull().references('vpcs.id'))
        .addColumn('subnet_id', 'text', (c) => c.notNull().references('subnets.id'))
        .addColumn('private_ip', 'text', (c) => c.notNull())
        .addColumn('mac', 'text', (c) => c.notNull().unique())
        .addColumn('security_groups', 'text', (c) => c.notNull())
        .addColumn('ssh_key_ids', 'text', (c) => c.notNull())
        .addColumn('user_data', 'text', (c) => c.notNull())
        .addColumn('desired', 'text', (c) => c.notNull())
        .addColumn('generation', integer, (c) => c.notNull())
        .addColumn('grace_seconds', integer, (c) => c.notNull())
        .addColumn('reboots', integer, (c) => c.notNull())
        .addColumn('reboot_grace_seconds', integer, (c) => c.notNull())
        .addColumn('host_id', 'text', (c) => c.references('hosts.id'))
        .addColumn('scheduled_at', integer)
        .addColumn('refusal', 'text', (c) => c.notNull())
        .addColumn('report', 'text')
        .addColumn('reason', 'text', (c) => c.notNull())
        .addColumn('message', 'text', (c) => c.notNull())
        .addColumn('terminated_at', integer)
        .addColumn('operation_id', 'text', (c) => c.notNull())
        .addCheckConstraint('instances_desired', sql`desired in ('running', 'stopped', 'deleted')`)
        .execute()
      for (const column of ['host_id', 'vpc_id', 'subnet_id', 'name', 'terminated_at']) {
        await db.schema.createIndex(`instances_${column}`).on('instances').column(column).execute()
      }

      await table('subnet_addresses')
        .addColumn('subnet_id', 'text', (c) => c.notNull().references('subnets.id'))
        .addColumn('address', 'text', (c) => c.notNull())
        .addColumn('instance_id', 'text', (c) => c.unique())
        .addColumn('freed_at', integer, (c) => c.notNull())
        .addPrimaryKeyConstraint('subnet_addresses_pk', ['subnet_id', 'address'])
        .execute()
      await db.schema
        .createIndex('subnet_addresses_freed')
        .on('subnet_addresses')
        .columns(['subnet_id', 'freed_at'])
        .execute()

      await table('instance_labels')
        .addColumn('instance_id', 'text', (c) => c.notNull().references('instances.id').onDelete('cascade'))
        .addColumn('key', 'text', (c) => c.notNull())
        .addColumn('value', 'text', (c) => c.notNull())
        .addPrimaryKeyConstraint('instance_labels_pk', ['instance_id', 'key'])
        .execute()
      await db.schema
        .createIndex('instance_labels_key_value')
        .on('instance_labels')
        .columns(['key', 'value', 'instance_id'])
        .execute()

      for (const [name, other] of [
        ['instance_security_groups', 'security_group'],
        ['instance_ssh_keys', 'ssh_key'],
      ] as const) {
        await table(name)
          .addColumn('instance_id', 'text', (c) => c.notNull().references('instances.id').onDelete('cascade'))
          .addColumn(`${other}_id`, 'text', (c) => c.notNull().references(`${other}s.id`))
          .addPrimaryKeyConstraint(`${name}_pk`, ['instance_id', `${other}_id`])
          .execute()
        await db.schema.createIndex(`${name}_used_by`).on(name).column(`${other}_id`).execute()
      }

      await table('operations')
        .addColumn('id', 'text', (c) => c.primaryKey().notNull())
        .addColumn('type', 'text', (c) => c.notNull())
        .addColumn('resource_id', 'text', (c) => c.notNull())
        .addColumn('status', 'text', (c) => c.notNull())
        .addColumn('steps', 'text', (c) => c.notNull())
        .addColumn('error', 'text')
        .addColumn('generation', integer, (c) => c.notNull())
        .addColumn('created_at', integer, (c) => c.notNull())
        .addColumn('deadline_at', integer, (c) => c.notNull())
        .addColumn('finished_at', integer)
        .execute()
      await db.schema.createIndex('operations_resource').on('operations').columns(['resource_id', 'id']).execute()
      await db.schema
        .createIndex('operations_open')
        .on('operations')
        .column('deadline_at')
        .where(sql.ref('finished_at'), 'is', null)
        .execute()
      await db.schema.createIndex('operations_finished').on('operations').column('finished_at').execute()

      await table('console_chunks')
        .addColumn('id', types.serial, (c) => c.primaryKey().notNull())
        .addColumn('instance_id', 'text', (c) => c.notNull().references('instances.id').onDelete('cascade'))
        .addColumn('offset', integer, (c) => c.notNull())
        .addColumn('length', integer, (c) => c.notNull())
        .addColumn('data', bytes, (c) => c.notNull())
        .addUniqueConstraint('console_chunks_offset', ['instance_id', 'offset'])
        .execute()
    },
  }
}
