import { ApiError } from '../../api-error.ts'
import { insertRow, prepare } from '../engine/prepared.ts'
import { type Listed, listMatchingIds, type Page, type ResourceFilter, withRows } from '../resource-list.ts'
import type { PublicIpRow } from '../schema.ts'
import type { Reader, Transaction } from '../transaction.ts'
import { firstVersion, updateResource } from '../versions.ts'

/** A public address as stored. */
export interface StoredPublicIp extends Omit<PublicIpRow, 'labels'> {
  labels: Record<string, string>
}

/** Addresses of a pool that may be handed out, as numbers: the first and the last. */
export interface AddressRange {
  first: number
  last: number
}

const byId = prepare((db, place) => db.selectFrom('public_ips').selectAll().where('id', '=', place('id')))

export async function findPublicIp(db: Reader, id: string): Promise<StoredPublicIp | null> {
  const row = await byId.first(db, { id })
  return row === undefined ? null : parse(row)
}

/** The public address. Throws not_found. */
export async function getPublicIp(db: Reader, id: string): Promise<StoredPublicIp> {
  const publicIp = await findPublicIp(db, id)
  if (publicIp === null) throw new ApiError('not_found', `There is no public address ${id}.`)
  return publicIp
}

const ofInstance = prepare((db, place) =>
  db.selectFrom('public_ips').selectAll().where('instance_id', '=', place('instance_id')),
)

/** The public address that an instance has, or null. */
export async function findPublicIpOfInstance(db: Reader, instanceId: string): Promise<StoredPublicIp | null> {
  const row = await ofInstance.first(db, { instance_id: instanceId })
  return row === undefined ? null : parse(row)
}

const holder = prepare((db, place) =>
  db.selectFrom('public_ips').select('instance_id').where('address', '=', place('address')),
)

/** Id of the instance that a public address leads to, or null. */
export async function findInstanceByPublicAddress(db: Reader, address: string): Promise<string | null> {
  return (await holder.first(db, { address }))?.instance_id ?? null
}

export async function listPublicIps(
  db: Reader,
  filter: ResourceFilter & { instance_id?: string; pool?: string },
  page: Page,
): Promise<Listed<StoredPublicIp>> {
  return withRows(await listMatchingIds(db, 'public_ips', filter, page), async (ids) =>
    (await db.selectFrom('public_ips').selectAll().where('id', 'in', ids).orderBy('id').execute()).map(parse),
  )
}

export async function insertPublicIp(
  tx: Transaction,
  publicIp: Omit<StoredPublicIp, 'uid' | 'generation'>,
): Promise<void> {
  await insertRow(tx.db, 'public_ips', { ...publicIp, labels: JSON.stringify(publicIp.labels), ...firstVersion() })
  tx.changed({ resource: 'public_ip', id: publicIp.id, action: 'created' })
}

/**
 * Change whom an address belongs to, its name or labels; `publicIp` is the version read before. Nothing when nothing
 * differs.
 */
export async function updatePublicIp(
  tx: Transaction,
  publicIp: StoredPublicIp,
  values: Partial<Pick<StoredPublicIp, 'name' | 'labels' | 'instance_id' | 'auto_assigned'>>,
): Promise<StoredPublicIp> {
  return updateResource<StoredPublicIp>(tx, 'public_ip', publicIp, values)
}

export async function deletePublicIp(tx: Transaction, id: string): Promise<void> {
  await tx.db.deleteFrom('public_ips').where('id', '=', id).execute()
  tx.changed({ resource: 'public_ip', id, action: 'deleted' })
}

/**
 * Take an address of a range, or null when none is free: the lowest above all that were ever handed out, then the one
 * that has been free longest, so a freed address is handed out again as late as possible. Ranges are the server's
 * configuration and may be others at its next start: what a new range has below the old one comes last. Unique by
 * constraint.
 */
export async function takePublicAddress(
  tx: Transaction,
  publicIpId: string,
  range: AddressRange,
): Promise<number | null> {
  const fresh = await lowestBehindAll(tx.db, range)
  const freed = fresh === null ? await longestFree(tx.db, range) : null
  if (freed !== null) {
    await tx.db.updateTable('public_addresses').set({ public_ip_id: publicIpId }).where('number', '=', freed).execute()
    return freed
  }
  const number = fresh ?? (await lowestGap(tx.db, range))
  if (number === null) return null
  await insertRow(tx.db, 'public_addresses', { number, public_ip_id: publicIpId, freed_at: 0 })
  return number
}

/** Free the address of a resource that goes. */
export async function freePublicAddress(tx: Transaction, publicIpId: string, now: number): Promise<void> {
  await tx.db
    .updateTable('public_addresses')
    .set({ public_ip_id: null, freed_at: now })
    .where('public_ip_id', '=', publicIpId)
    .execute()
}

const highest = prepare((db, place) =>
  db
    .selectFrom('public_addresses')
    .select('number')
    .where('number', '>=', place('first'))
    .where('number', '<=', place('last'))
    .orderBy('number', 'desc')
    .limit(1),
)

async function lowestBehindAll(db: Reader, { first, last }: AddressRange): Promise<number | null> {
  const next = ((await highest.first(db, { first, last }))?.number ?? first - 1) + 1
  return next > last ? null : next
}

const freed = prepare((db, place) =>
  db
    .selectFrom('public_addresses')
    .select('number')
    .where('public_ip_id', 'is', null)
    .where('number', '>=', place('first'))
    .where('number', '<=', place('last'))
    .orderBy('freed_at')
    .orderBy('number')
    .limit(1),
)

async function longestFree(db: Reader, { first, last }: AddressRange): Promise<number | null> {
  return (await freed.first(db, { first, last }))?.number ?? null
}

const handedOut = prepare((db, place) =>
  db
    .selectFrom('public_addresses')
    .select((query) => query.fn.countAll().as('count'))
    .where('number', '>=', place('first'))
    .where('number', '<=', place('last')),
)

const gap = prepare((db, place) =>
  db
    .selectFrom('public_addresses as above')
    .select('above.number')
    .where('above.number', '>', place('first'))
    .where('above.number', '<=', place('last'))
    .where(({ eb, not, exists }) =>
      not(
        exists(
          eb
            .selectFrom('public_addresses as below')
            .select('below.number')
            .where('below.number', '=', eb('above.number', '-', 1)),
        ),
      ),
    )
    .orderBy('above.number')
    .limit(1),
)

/** An address that was never handed out though a higher one was, or null. */
async function lowestGap(db: Reader, { first, last }: AddressRange): Promise<number | null> {
  // a range that is full, as a long time it may be, has none to look for one by one
  if (Number((await handedOut.first(db, { first, last }))?.count) > last - first) return null
  const above = (await gap.first(db, { first, last }))?.number
  return above === undefined ? null : above - 1
}

function parse(row: PublicIpRow): StoredPublicIp {
  return { ...row, labels: JSON.parse(row.labels) }
}
