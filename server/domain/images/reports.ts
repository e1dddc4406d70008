import type { DesiredImage, ObservedImage, RemovedImage } from '@berth/contract/hosts/agent-protocol.ts'
import { type ImageState, isWantedImage } from '@berth/contract/images/images.ts'
import type { Context } from '../../context.ts'
import { reportsOfImage } from '../../store/hosts/hosts.ts'
import { findImage, type StoredImage } from '../../store/images/images.ts'
import type { Reader, Transaction } from '../../store/transaction.ts'

/** Which of the downloads that a host reports were made for an image that is no more. */
export async function findRemovedImages(db: Reader, reports: readonly ObservedImage[]): Promise<RemovedImage[]> {
  const removed: RemovedImage[] = []
  for (const report of reports) {
    const mark = madeFor(report)
    if (mark === undefined || (await findImage(db, report.id))?.checksum === mark) continue
    removed.push({ id: report.id, registered_checksum: mark })
  }
  return removed
}

/**
 * Follow what a host newly reports of its images: an event for each whose state, over all hosts, is another now, and the
 * word to the host when it has one that is no more.
 */
export async function followImageReports(
  ctx: Context,
  tx: Transaction,
  hostId: string,
  { before, after }: { before: readonly ObservedImage[]; after: readonly ObservedImage[] },
): Promise<void> {
  const old = new Map(before.map((report) => [report.id, report]))
  const fresh = new Map(after.map((report) => [report.id, report]))
  const changed = [...new Set([...old.keys(), ...fresh.keys()])].filter(
    (id) => standing(old.get(id)) !== standing(fresh.get(id)),
  )
  for (const id of changed) await followImage(ctx, tx, id, hostId, [old.get(id), fresh.get(id)])
  const removed = await findRemovedImages(
    tx.db,
    changed.map((id) => fresh.get(id)).filter((report) => report !== undefined),
  )
  if (removed.length > 0) tx.tellHosts([hostId])
}

/** The part of a report that can change the state of an image; progress cannot. */
function standing(report: ObservedImage | undefined): string {
  return JSON.stringify([report?.state, report && madeFor(report), report?.image?.origin])
}

async function followImage(
  ctx: Context,
  tx: Transaction,
  id: string,
  hostId: string,
  reports: readonly (ObservedImage | undefined)[],
): Promise<void> {
  const stored = await findImage(tx.db, id)
  const described = stored === null ? ctx.images.get(id) : registeredImage(stored)
  const wanted = described ?? {}
  let elsewhere: ImageState = 'missing'
  for await (const other of reportsOfImage(tx.db, id)) {
    if (other.hostId === hostId) continue
    elsewhere = betterState(elsewhere, stateIn(other.report, wanted))
    if (elsewhere === 'available') return // whatever this host says
  }
  const [before = 'missing', after = 'missing'] = reports.map((report) =>
    betterState(elsewhere, stateIn(report, wanted)),
  )
  if (described !== undefined) {
    if (before !== after) tx.changed({ resource: 'image', id, action: 'updated', detail: { state: after } })
    return
  }
  // one that only hosts have is there while one of them has it
  if (before !== 'available' && after === 'available') tx.changed({ resource: 'image', id, action: 'created' })
  if (before === 'available' && after !== 'available') tx.changed({ resource: 'image', id, action: 'deleted' })
}

/** The checksum that a download was made for, undefined unless for an image made through the API. */
export function madeFor(report: ObservedImage): string | undefined {
  return report.image === null ? report.registered_checksum : report.image.registered_checksum
}

/** What a report says of an image that is wanted; nothing when it is of another that has or had the id. */
export function stateIn(
  report: ObservedImage | undefined,
  wanted: Pick<DesiredImage, 'registered' | 'checksum'>,
): ImageState {
  if (report === undefined) return 'missing'
  const held = report.image ?? { origin: 'downloaded' as const, registered_checksum: report.registered_checksum }
  return isWantedImage(held, wanted) ? report.state : 'missing'
}

const ranks: readonly ImageState[] = ['missing', 'failed', 'downloading', 'available']

/** The better of two states, as the state of an image over all hosts is the best of theirs. */
export function betterState(a: ImageState, b: ImageState): ImageState {
  return ranks.indexOf(a) < ranks.indexOf(b) ? b : a
}

/** An image that was made through the API, as hosts hear of it. */
export function registeredImage(row: StoredImage): DesiredImage {
  const { id, title, source_url, checksum, min_disk_gb, default_user, network, datasource } = row
  const timeout = row.ready_timeout_seconds === null ? {} : { ready_timeout_seconds: row.ready_timeout_seconds }
  const file = { source_url, checksum, min_disk_gb, architecture: 'x86_64' } as const
  return { id, title, ...file, default_user, network, datasource, ...timeout, registered: true }
}
