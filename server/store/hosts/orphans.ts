import type { HostOrphan } from '@berth/contract/hosts/agent-protocol.ts'
import type { ServerOrphanKind } from '@berth/contract/hosts/orphans.ts'
import { formatAddress } from '@berth/contract/networks/cidr.ts'
import { sql } from 'kysely'
import type { Reader, Transaction } from '../transaction.ts'

/** A row that nothing explains: what it is called, the host it is about ("" for none), and why it should not be there. */
export interface OrphanRow {
  kind: ServerOrphanKind
  name: string
  host_id: string
  detail: string
}

/** Orphans of one kind that are looked for: one statement each, so that what it says is of one moment. */
type Check = (db: Reader, now: { keysBefore: number }, limit: number) => Promise<OrphanRow[]>

/**
 * Where the server's own leftovers are looked for. A table that holds something for an instance gets a line here.
 */
export const checks: readonly Check[] = [
  async (db, _now, limit) => {
    const rows = await db
      .selectFrom('subnet_addresses as held')
      .leftJoin('instances as holder', 'holder.id', 'held.instance_id')
      .select(['held.subnet_id', 'held.address', 'held.instance_id'])
      .where('held.instance_id', 'is not', null)
      .where((eb) => eb.or([eb('holder.id', 'is', null), eb('holder.terminated_at', 'is not', null)]))
      .limit(limit)
      .execute()
    return rows.map((row) => ({
      kind: 'address',
      name: row.address,
      host_id: '',
      detail: `of ${row.subnet_id}; held for ${row.instance_id}, which is gone`,
    }))
  },
  async (db, _now, limit) => {
    const rows = await db
      .selectFrom('public_ips as held')
      .innerJoin('instances as holder', 'holder.id', 'held.instance_id')
      .select(['held.id', 'held.address', 'held.instance_id'])
      .where('holder.terminated_at', 'is not', null)
      .limit(limit)
      .execute()
    return rows.map((row) => ({
      kind: 'public_ip',
      name: row.id,
      host_id: '',
      detail: `${row.address} is still of ${row.instance_id}, which is gone`,
    }))
  },
  async (db, _now, limit) => {
    const rows = await db
      .selectFrom('public_addresses as held')
      .leftJoin('public_ips as holder', 'holder.id', 'held.public_ip_id')
      .select(['held.number', 'held.public_ip_id'])
      .where('held.public_ip_id', 'is not', null)
      .where('holder.id', 'is', null)
      .limit(limit)
      .execute()
    return rows.map(({ number, public_ip_id }) => ({
      kind: 'public_address',
      name: formatAddress(number),
      host_id: '',
      detail: `held for ${public_ip_id}, which is gone`,
    }))
  },
  async (db, _now, limit) => {
    const reserved = (column: 'vcpus' | 'memory_mb' | 'disk_gb') =>
      sql<number>`coalesce(sum(${sql.ref(`placed.${column}`)}), 0)`
    const rows = await db
      .selectFrom('hosts as host')
      .leftJoin('instances as placed', (join) =>
        join.onRef('placed.host_id', '=', 'host.id').on('placed.terminated_at', 'is', null),
      )
      .select(['host.id', 'host.allocated_vcpus', 'host.allocated_memory_mb', 'host.allocated_disk_gb'])
      .select([reserved('vcpus').as('vcpus'), reserved('memory_mb').as('memory_mb'), reserved('disk_gb').as('disk_gb')])
      .groupBy(['host.id', 'host.allocated_vcpus', 'host.allocated_memory_mb', 'host.allocated_disk_gb'])
      .having((eb) =>
        eb.or([
          eb('host.allocated_vcpus', '!=', reserved('vcpus')),
          eb('host.allocated_memory_mb', '!=', reserved('memory_mb')),
          eb('host.allocated_disk_gb', '!=', reserved('disk_gb')),
        ]),
      )
      .limit(limit)
      .execute()
    return rows.map((row) => ({
      kind: 'reservation',
      name: `${row.allocated_vcpus} vCPUs, ${row.allocated_memory_mb} MiB, ${row.allocated_disk_gb} GiB`,
      host_id: row.id,
      detail: `its instances have ${row.vcpus} vCPUs, ${row.memory_mb} MiB, ${row.disk_gb} GiB`,
    }))
  },
  async (db, _now, limit) => {
    const rows = await db
      .selectFrom('operations as open')
      .leftJoin('instances as instance', 'instance.id', 'open.resource_id')
      .select(['open.id', 'open.type', 'open.resource_id'])
      .where('open.finished_at', 'is', null)
      .where((eb) => eb.or([eb('instance.id', 'is', null), eb('instance.terminated_at', 'is not', null)]))
      .limit(limit)
      .execute()
    return rows.map(({ id, type, resource_id }) => ({
      kind: 'operation',
      name: id,
      host_id: '',
      detail: `${type} of ${resource_id}, which is gone, has not ended`,
    }))
  },
  withoutInstance('instance_labels', 'key', 'label'),
  withoutInstance('instance_security_groups', 'security_group_id', 'security_group_use'),
  withoutInstance('instance_ssh_keys', 'ssh_key_id', 'ssh_key_use'),
  async (db, { keysBefore }, limit) => {
    const rows = await db
      .selectFrom('idempotency_keys')
      .select('key')
      .where('created_at', '<', keysBefore)
      .limit(limit)
      .execute()
    return rows.map(({ key }) => ({ kind: 'idempotency_key', name: key, host_id: '', detail: 'its time is over' }))
  },
]

function withoutInstance(
  table: 'instance_labels' | 'instance_security_groups' | 'instance_ssh_keys',
  column: 'key' | 'security_group_id' | 'ssh_key_id',
  kind: ServerOrphanKind,
): Check {
  return async (db, _now, limit) => {
    const { rows } = await sql<{ name: string; instance_id: string }>`
      select ${sql.ref(column)} as name, instance_id from ${sql.table(table)}
      where instance_id not in (select id from instances) limit ${limit}`.execute(db)
    return rows.map((row) => ({ kind, name: row.name, host_id: '', detail: `of ${row.instance_id}, which is gone` }))
  }
}

/** What each host last told of, by the host's id; null of one that has told of none. */
export interface StoredHostOrphans {
  host_id: string
  looked_at: number | null
  orphans: HostOrphan[]
}

/** What every host has found, also those that have never looked. */
export async function listHostOrphans(db: Reader): Promise<StoredHostOrphans[]> {
  const rows = await db
    .selectFrom('hosts')
    .leftJoin('host_orphans as look', 'look.host_id', 'hosts.id')
    .select(['hosts.id', 'look.looked_at', 'look.orphans'])
    .where('hosts.last_seen_at', '>', 0)
    .orderBy('hosts.id')
    .execute()
  return rows.map((row) => ({
    host_id: row.id,
    looked_at: row.looked_at,
    orphans: row.orphans === null ? [] : JSON.parse(row.orphans),
  }))
}

/** Keep what a host has found, in place of what it found before. */
export async function storeHostOrphans(
  tx: Transaction,
  hostId: string,
  look: { looked_at: number; orphans: readonly HostOrphan[] },
): Promise<void> {
  const values = { looked_at: look.looked_at, orphans: JSON.stringify(look.orphans) }
  await tx.db
    .insertInto('host_orphans')
    .values({ host_id: hostId, ...values })
    .onConflict((conflict) => conflict.column('host_id').doUpdateSet(values))
    .execute()
}
