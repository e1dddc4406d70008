import type { ObservedImage } from '@berth/contract/hosts/agent-protocol.ts'
import { sql } from 'kysely'
import { ApiError } from '../../api-error.ts'
import { prepare } from '../engine/prepared.ts'
import { type Listed, listMatchingIds, type Page, type ResourceFilter, withRows } from '../resource-list.ts'
import type { HostRow } from '../schema.ts'
import type { Reader, Transaction } from '../transaction.ts'
import { firstVersion } from '../versions.ts'

/** A host as stored, its JSON columns parsed. */
export interface StoredHost extends Omit<HostRow, 'labels' | 'images'> {
  labels: Record<string, string>
  images: ObservedImage[]
}

/** vCPUs, MiB of memory and GiB of disk. */
export interface Size {
  vcpus: number
  memory_mb: number
  disk_gb: number
}

const byId = prepare((db, place) => db.selectFrom('hosts').selectAll().where('id', '=', place('id')))

export async function findHost(db: Reader, id: string): Promise<StoredHost | null> {
  const row = await byId.first(db, { id })
  return row === undefined ? null : parse(row)
}

/** The host. Throws not_found. */
export async function getHost(db: Reader, id: string): Promise<StoredHost> {
  const host = await findHost(db, id)
  if (host === null) throw new ApiError('not_found', `There is no host ${id}.`)
  return host
}

/** Every host, by id. */
export async function listHosts(db: Reader): Promise<StoredHost[]> {
  return (await db.selectFrom('hosts').selectAll().orderBy('id').execute()).map(parse)
}

/** A page of hosts, by id. */
export async function listHostPage(db: Reader, filter: ResourceFilter, page: Page): Promise<Listed<StoredHost>> {
  return withRows(await listMatchingIds(db, 'hosts', filter, page), async (ids) =>
    (await db.selectFrom('hosts').selectAll().where('id', 'in', ids).orderBy('id').execute()).map(parse),
  )
}

/** What placement looks at of a host. */
export type HostRoom = Pick<HostRow, (typeof roomColumns)[number]>

const roomColumns = [
  'id',
  'schedulable',
  'last_seen_at',
  'capacity_vcpus',
  'capacity_memory_mb',
  'capacity_disk_gb',
  'allocated_vcpus',
  'allocated_memory_mb',
  'allocated_disk_gb',
] as const

const room = prepare((db) => db.selectFrom('hosts').select(roomColumns).where('last_seen_at', '>', 0).orderBy('id'))

const someRoom = prepare((db) =>
  db
    .selectFrom('hosts')
    .select(roomColumns)
    .where('last_seen_at', '>', 0)
    .where('schedulable', '=', 1)
    .whereRef('allocated_vcpus', '<', 'capacity_vcpus')
    .whereRef('allocated_memory_mb', '<', 'capacity_memory_mb')
    .whereRef('allocated_disk_gb', '<', 'capacity_disk_gb')
    .orderBy('id'),
)

/** The hosts that ever connected, by id; `withRoom` leaves out those that are full or cordoned. */
export async function listHostRoom(db: Reader, { withRoom }: { withRoom: boolean }): Promise<HostRoom[]> {
  return (withRoom ? someRoom : room).all(db, {})
}

const withImage = prepare((db, place) =>
  db
    .selectFrom('hosts')
    .select(['id', 'images'])
    .where('id', '>', place('after'))
    .where('images', 'like', place('pattern'))
    .orderBy('id')
    .limit(place('limit')),
)

/**
 * What hosts report of the image under an id, in the order of the hosts; whoever looks for one report reads no more than
 * it takes. Image ids have neither % nor _, so that the database finds the hosts that name it without anybody parsing
 * the lists of the others.
 */
export async function* reportsOfImage(
  db: Reader,
  id: string,
): AsyncGenerator<{ hostId: string; report: ObservedImage }> {
  let after = ''
  for (let limit = 1; ; limit = 50) {
    const rows = await withImage.all(db, { after, pattern: `%"id":"${id}"%`, limit })
    for (const row of rows) {
      const images: ObservedImage[] = JSON.parse(row.images)
      const report = images.find((candidate) => candidate.id === id)
      if (report !== undefined) yield { hostId: row.id, report }
      after = row.id
    }
    if (rows.length < limit) return
  }
}

/** An image that a host has of itself, not for one made through the API, as the first such host describes it, or null. */
export async function findHostImage(db: Reader, id: string): Promise<NonNullable<ObservedImage['image']> | null> {
  for await (const { report } of reportsOfImage(db, id)) {
    if (report.image !== null && report.image.registered_checksum === undefined) return report.image
  }
  return null
}

/** Make the host known; does nothing when it is. */
export async function insertHostIfAbsent(
  tx: Transaction,
  host: { id: string; name: string; created_at: number },
): Promise<void> {
  const result = await tx.db
    .insertInto('hosts')
    .values({ ...emptyHost, ...host, ...firstVersion() })
    .onConflict((c) => c.column('id').doNothing())
    .executeTakeFirst()
  if (result.numInsertedOrUpdatedRows === 1n) tx.changed({ resource: 'host', id: host.id, action: 'created' })
}

export type HostReport = Pick<
  StoredHost,
  | 'agent_session'
  | 'sequence'
  | 'agent_version'
  | 'hypervisor'
  | 'accelerator'
  | 'accelerator_reason'
  | 'capacity_vcpus'
  | 'capacity_memory_mb'
  | 'capacity_disk_gb'
  | 'images'
  | 'last_seen_at'
  | 'last_repair'
>

const updateReported = prepare((db, place) =>
  db
    .updateTable('hosts')
    .set({
      agent_session: place('agent_session'),
      sequence: place('sequence'),
      agent_version: place('agent_version'),
      hypervisor: place('hypervisor'),
      accelerator: place('accelerator'),
      accelerator_reason: place('accelerator_reason'),
      capacity_vcpus: place('capacity_vcpus'),
      capacity_memory_mb: place('capacity_memory_mb'),
      capacity_disk_gb: place('capacity_disk_gb'),
      images: place('images'),
      last_seen_at: place('last_seen_at'),
      last_repair: place('last_repair'),
      silent: 0,
    })
    .where('id', '=', place('id')),
)

/**
 * Store what a host says of itself; `host` is the version read before. It is a change that callers hear of only when
 * more is new than the time of the report, or when they were told that it is silent.
 */
export async function updateHostReport(tx: Transaction, host: StoredHost, report: HostReport): Promise<void> {
  await updateReported.run(tx.db, { ...report, images: JSON.stringify(report.images), id: host.id })
  const returned = host.last_seen_at === 0 || host.silent === 1
  if (returned || shownColumns.some((column) => host[column] !== report[column])) {
    const detail = { generation: host.generation, state: 'ready' }
    tx.changed({ resource: 'host', id: host.id, action: 'updated', detail })
  } else tx.wake(host.id)
}

const newlySilent = prepare((db, place) =>
  db
    .selectFrom('hosts')
    .select(['id', 'generation'])
    .where('silent', '=', 0)
    .where('last_seen_at', '>', 0)
    .where('last_seen_at', '<=', place('heard'))
    .orderBy('id')
    .limit(place('limit')),
)

/** Hosts of which nothing was heard since a time and of which that was not told yet, at most `limit`. */
export function listNewlySilentHosts(
  db: Reader,
  heard: number,
  limit: number,
): Promise<Pick<HostRow, 'id' | 'generation'>[]> {
  return newlySilent.all(db, { heard, limit })
}

/** Tell that nothing is heard of a host any more, until its next report. */
export async function updateSilent(tx: Transaction, { id, generation }: Pick<HostRow, 'id' | 'generation'>) {
  await tx.db.updateTable('hosts').set({ silent: 1 }).where('id', '=', id).execute()
  tx.changed({ resource: 'host', id, action: 'updated', detail: { generation, state: 'unreachable' } })
}

/** What the document of a host shows of its reports, besides the time. */
const shownColumns = [
  'agent_version',
  'hypervisor',
  'accelerator',
  'accelerator_reason',
  'capacity_vcpus',
  'capacity_memory_mb',
  'capacity_disk_gb',
] as const satisfies readonly (keyof HostReport)[]

const raise = prepare((db, place) =>
  db
    .updateTable('hosts')
    .set((eb) => ({ desired_revision: eb('desired_revision', '+', 1) }))
    .where('id', '=', place('id')),
)

/** Note that a host must fetch its desired state again; the store's part of `tx.tellHosts`. */
export async function raiseDesiredRevision(db: Reader, id: string): Promise<void> {
  await raise.run(db, { id })
}

const reserveRoom = prepare((db, place) =>
  db
    .updateTable('hosts')
    .set((eb) => ({
      allocated_vcpus: eb('allocated_vcpus', '+', place('vcpus')),
      allocated_memory_mb: eb('allocated_memory_mb', '+', place('memory_mb')),
      allocated_disk_gb: eb('allocated_disk_gb', '+', place('disk_gb')),
    }))
    .where('id', '=', place('id'))
    .where(sql<boolean>`allocated_vcpus + ${place('vcpus')} <= capacity_vcpus`)
    .where(sql<boolean>`allocated_memory_mb + ${place('memory_mb')} <= capacity_memory_mb`)
    .where(sql<boolean>`allocated_disk_gb + ${place('disk_gb')} <= capacity_disk_gb`),
)

/** Reserve room on a host; false, and nothing changed, when it has none left. One conditional statement. */
export async function reserve(tx: Transaction, hostId: string, size: Size): Promise<boolean> {
  const { vcpus, memory_mb, disk_gb } = size
  return (await reserveRoom.run(tx.db, { id: hostId, vcpus, memory_mb, disk_gb })) === 1
}

/** Give reserved room back. */
export async function release(tx: Transaction, hostId: string, size: Size): Promise<void> {
  await tx.db
    .updateTable('hosts')
    .set((eb) => ({
      allocated_vcpus: eb('allocated_vcpus', '-', size.vcpus),
      allocated_memory_mb: eb('allocated_memory_mb', '-', size.memory_mb),
      allocated_disk_gb: eb('allocated_disk_gb', '-', size.disk_gb),
    }))
    .where('id', '=', hostId)
    .execute()
  tx.wake(hostId)
}

const emptyHost = {
  labels: '{}',
  schedulable: 1,
  desired_revision: 1,
  agent_session: 0,
  sequence: 0,
  agent_version: '',
  hypervisor: '',
  accelerator: '',
  accelerator_reason: '',
  capacity_vcpus: 0,
  capacity_memory_mb: 0,
  capacity_disk_gb: 0,
  allocated_vcpus: 0,
  allocated_memory_mb: 0,
  allocated_disk_gb: 0,
  images: '[]',
  last_seen_at: 0,
  silent: 0,
  last_repair: 0,
} as const satisfies Omit<HostRow, 'id' | 'name' | 'created_at' | 'uid' | 'generation'>

function parse(row: HostRow): StoredHost {
  return { ...row, labels: JSON.parse(row.labels), images: JSON.parse(row.images) }
}
