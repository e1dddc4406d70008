import { setImmediate as nextTurn } from 'node:timers/promises'
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

/** Where a piece begins: behind the row with this key; without one at the beginning of the table. */
type Key = readonly [string | number, (string | number)?]

interface Now {
  /** Idempotency keys made before are over, milliseconds UTC. */
  keysBefore: number
}

/** What a piece of a table has, and the key of its last row; null when that was the last of the table. */
type Check = (db: Reader, now: Now, after: Key | undefined) => Promise<{ orphans: OrphanRow[]; last: Key | null }>

/** Rows that are looked at in one statement; few enough that it takes about a millisecond. */
const pieceSize = 250

/** The same for hosts, whose instances are added up. */
const hostPieceSize = 10

/**
 * At most `limit` orphans that a check finds. SQLite answers in the thread that serves requests, so a table is gone
 * through in pieces, along its key, and others have their turn between two pieces. Each row and what explains it are
 * read in one statement, so that what is said of it is of one moment.
 */
export async function findOrphans(check: Check, db: Reader, now: Now, limit: number): Promise<OrphanRow[]> {
  const found: OrphanRow[] = []
  for (let after: Key | undefined; ; ) {
    const { orphans, last }: Awaited<ReturnType<Check>> = await check(db, now, after)
    found.push(...orphans)
    if (last === null || found.length >= limit) return found.slice(0, limit)
    after = last
    await nextTurn()
  }
}

function checkOf<Row>(
  size: number,
  read: (db: Reader, after: Key | undefined) => Promise<Row[]>,
  keyOf: (row: Row) => Key,
  orphanOf: (row: Row) => OrphanRow | null,
): Check {
  return async (db, _now, after) => {
    const rows = await read(db, after)
    const end = rows.at(-1)
    return {
      orphans: rows.map(orphanOf).filter((orphan) => orphan !== null),
      last: end === undefined || rows.length < size ? null : keyOf(end),
    }
  }
}

/**
 * Where the server's own leftovers are looked for. A table that holds something for an instance gets a line here.
 */
export const checks: readonly Check[] = [
  checkOf(
    pieceSize,
    (db, [subnet, address = ''] = ['']) =>
      db
        .selectFrom('subnet_addresses as held')
        .leftJoin('instances as holder', 'holder.id', 'held.instance_id')
        .select(['held.subnet_id', 'held.address', 'held.instance_id', 'holder.id as holder', 'holder.terminated_at'])
        .where(sql<boolean>`(held.subnet_id, held.address) > (${subnet}, ${address})`)
        .orderBy('held.subnet_id')
        .orderBy('held.address')
        .limit(pieceSize)
        .execute(),
    (row) => [row.subnet_id, row.address],
    (row) =>
      row.instance_id === null || (row.holder !== null && row.terminated_at === null)
        ? null
        : {
            kind: 'address',
            name: row.address,
            host_id: '',
            detail: `of ${row.subnet_id}; held for ${row.instance_id}, which is gone`,
          },
  ),
  checkOf(
    pieceSize,
    (db, [after] = ['']) =>
      db
        .selectFrom('public_ips as held')
        .leftJoin('instances as holder', 'holder.id', 'held.instance_id')
        .select(['held.id', 'held.address', 'held.instance_id', 'holder.terminated_at'])
        .where('held.id', '>', String(after))
        .orderBy('held.id')
        .limit(pieceSize)
        .execute(),
    (row) => [row.id],
    (row) =>
      row.terminated_at === null
        ? null
        : {
            kind: 'public_ip',
            name: row.id,
            host_id: '',
            detail: `${row.address} is still of ${row.instance_id}, which is gone`,
          },
  ),
  checkOf(
    pieceSize,
    (db, [after] = [-1]) =>
      db
        .selectFrom('public_addresses as held')
        .leftJoin('public_ips as holder', 'holder.id', 'held.public_ip_id')
        .select(['held.number', 'held.public_ip_id', 'holder.id as holder'])
        .where('held.number', '>', Number(after))
        .orderBy('held.number')
        .limit(pieceSize)
        .execute(),
    (row) => [row.number],
    ({ number, public_ip_id, holder }) =>
      public_ip_id === null || holder !== null
        ? null
        : {
            kind: 'public_address',
            name: formatAddress(number),
            host_id: '',
            detail: `held for ${public_ip_id}, which is gone`,
          },
  ),
  checkOf(
    hostPieceSize,
    (db, [after] = ['']) =>
      db
        .selectFrom(
          db
            .selectFrom('hosts')
            .selectAll()
            .where('id', '>', String(after))
            .orderBy('id')
            .limit(hostPieceSize)
            .as('host'),
        )
        .leftJoin('instances as placed', (join) =>
          join.onRef('placed.host_id', '=', 'host.id').on('placed.terminated_at', 'is', null),
        )
        .select(['host.id', 'host.allocated_vcpus', 'host.allocated_memory_mb', 'host.allocated_disk_gb'])
        .select([reserved('vcpus').as('vcpus'), reserved('memory_mb').as('memory'), reserved('disk_gb').as('disk')])
        .groupBy(['host.id', 'host.allocated_vcpus', 'host.allocated_memory_mb', 'host.allocated_disk_gb'])
        .orderBy('host.id')
        .execute(),
    (row) => [row.id],
    ({ id, allocated_vcpus, allocated_memory_mb, allocated_disk_gb, vcpus, memory, disk }) =>
      allocated_vcpus === Number(vcpus) && allocated_memory_mb === Number(memory) && allocated_disk_gb === Number(disk)
        ? null
        : {
            kind: 'reservation',
            name: `${allocated_vcpus} vCPUs, ${allocated_memory_mb} MiB, ${allocated_disk_gb} GiB`,
            host_id: id,
            detail: `its instances have ${vcpus} vCPUs, ${memory} MiB, ${disk} GiB`,
          },
  ),
  openOperations('pending'),
  openOperations('running'),
  withoutInstance('instance_labels', 'key', 'label'),
  withoutInstance('instance_security_groups', 'security_group_id', 'security_group_use'),
  withoutInstance('instance_ssh_keys', 'ssh_key_id', 'ssh_key_use'),
  async (db, { keysBefore }) => {
    const rows = await db
      .selectFrom('idempotency_keys')
      .select('key')
      .where('created_at', '<', keysBefore)
      .limit(pieceSize)
      .execute()
    // each of these is one, so that this piece has more than are told of
    const orphans = rows.map(({ key }) => ({
      ...{ kind: 'idempotency_key' as const, name: key },
      ...{ host_id: '', detail: 'its time is over' },
    }))
    return { orphans, last: null }
  },
]

function reserved(column: 'vcpus' | 'memory_mb' | 'disk_gb') {
  return sql<number>`coalesce(sum(${sql.ref(`placed.${column}`)}), 0)`
}

function openOperations(status: 'pending' | 'running'): Check {
  return checkOf(
    pieceSize,
    (db, [after] = ['']) =>
      db
        .selectFrom('operations as open')
        .leftJoin('instances as instance', 'instance.id', 'open.resource_id')
        .select(['open.id', 'open.type', 'open.resource_id', 'instance.id as instance', 'instance.terminated_at'])
        .where('open.status', '=', status)
        .where('open.id', '>', String(after))
        .orderBy('open.id')
        .limit(pieceSize)
        .execute(),
    (row) => [row.id],
    ({ id, type, resource_id, instance, terminated_at }) =>
      instance !== null && terminated_at === null
        ? null
        : {
            kind: 'operation',
            name: id,
            host_id: '',
            detail: `${type} of ${resource_id}, which is gone, has not ended`,
          },
  )
}

function withoutInstance(
  table: 'instance_labels' | 'instance_security_groups' | 'instance_ssh_keys',
  column: 'key' | 'security_group_id' | 'ssh_key_id',
  kind: ServerOrphanKind,
): Check {
  return checkOf(
    pieceSize,
    async (db, [instance, name = ''] = ['']) => {
      const { rows } = await sql<{ name: string; instance_id: string; holder: string | null }>`
        select held.${sql.ref(column)} as name, held.instance_id, holder.id as holder
        from ${sql.table(table)} as held left join instances as holder on holder.id = held.instance_id
        where (held.instance_id, held.${sql.ref(column)}) > (${instance}, ${name})
        order by held.instance_id, held.${sql.ref(column)} limit ${pieceSize}`.execute(db)
      return rows
    },
    (row) => [row.instance_id, row.name],
    ({ name, instance_id, holder }) =>
      holder === null ? { kind, name, host_id: '', detail: `of ${instance_id}, which is gone` } : null,
  )
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
