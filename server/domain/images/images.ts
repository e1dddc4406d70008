import type { DesiredImage, ObservedImage } from '@berth/contract/hosts/agent-protocol.ts'
import { readyTimeoutSeconds } from '@berth/contract/images/bounds.ts'
import { parseChecksum, pathOf, sha256Of } from '@berth/contract/images/checksum.ts'
import type { Image, ImageCreate, ImagePatch, ImageState } from '@berth/contract/images/images.ts'
import { type PrivateSources, sourceFault } from '@berth/contract/images/source.ts'
import { matchesLabels } from '@berth/contract/label-selector.ts'
import { toRfc3339 } from '@berth/contract/units.ts'
import { ApiError, inUse, mostUsers, validationError } from '../../api-error.ts'
import type { Context } from '../../context.ts'
import { findHostImage, listHosts, reportsOfImage } from '../../store/hosts/hosts.ts'
import {
  deleteImage as deleteImageRow,
  findImage,
  getImage,
  insertImage,
  listImages,
  listInstancesWithImage,
  type StoredImage,
} from '../../store/images/images.ts'
import type { ResourceFilter } from '../../store/resource-list.ts'
import type { Reader, Transaction } from '../../store/transaction.ts'
import { updateResource } from '../../store/versions.ts'
import { checkIfMatch, entityTag, type Versioned } from '../entity-tag.ts'
import { patchedMetadata } from '../labels.ts'
import { betterState, madeFor, registeredImage, stateIn } from './reports.ts'

/**
 * The image under an id, or null. One that was made through the API stands as it was made, also when a catalogue names
 * the id later; of the others what a host has wins over the catalogue, also in its sizes.
 */
export async function findKnownImage(ctx: Context, db: Reader, id: string): Promise<DesiredImage | null> {
  const stored = await findImage(db, id)
  if (stored !== null) return registeredImage(stored)
  const held = await findHostImage(db, id)
  const catalogued = ctx.images.get(id)
  return held === null ? (catalogued ?? null) : fromHost(held, catalogued)
}

/** Make an image known, to be downloaded by the hosts that need it. */
export async function createImage(ctx: Context, tx: Transaction, body: ImageCreate): Promise<Image> {
  const { id, metadata, spec } = body
  const fault = sourceUrlFault(spec.source_url, ctx.settings.allowPrivateImageSources)
  if (fault !== null) throw validationError([{ pointer: '/spec/source_url', message: fault }])
  const checksum = checksumOf(spec)
  if ((await findKnownImage(ctx, tx.db, id)) !== null) {
    throw new ApiError('already_exists', `There is an image ${id} already.`)
  }
  await insertImage(tx, {
    id,
    name: metadata?.name ?? nameOf(id),
    labels: metadata?.labels ?? {},
    created_at: ctx.now(),
    title: spec.title ?? id,
    source_url: spec.source_url,
    checksum,
    min_disk_gb: spec.min_disk_gb,
    default_user: spec.default_user,
    network: spec.network ?? 'static',
    datasource: spec.datasource ?? 'disk',
    ready_timeout_seconds: spec.ready_timeout_seconds ?? null,
  })
  return (await readImageIn(ctx, tx.db, id)).document
}

export function readImage(ctx: Context, id: string): Promise<Versioned<Image>> {
  return readImageIn(ctx, ctx.store.read, id)
}

/** Every image of the API, the catalogue and the hosts that fits the filter. */
export async function readImages(ctx: Context, filter: ResourceFilter): Promise<Image[]> {
  const reports = Map.groupBy(
    (await listHosts(ctx.store.read)).flatMap((host) => host.images),
    ({ id }) => id,
  )
  const known = new Map<string, DesiredImage>(ctx.images)
  for (const [id, [...reported]] of reports) {
    const held = reported.find(({ image }) => image !== null && image.registered_checksum === undefined)?.image
    if (held) known.set(id, fromHost(held, ctx.images.get(id)))
  }
  const stored = new Map((await listImages(ctx.store.read)).map((row) => [row.id, row]))
  for (const row of stored.values()) known.set(row.id, registeredImage(row))
  return [...known.values()]
    .map((image) => document(image, stored.get(image.id) ?? null, reports.get(image.id) ?? []))
    .filter(({ metadata }) => filter.name === undefined || metadata.name === filter.name)
    .filter(({ metadata }) => matchesLabels(metadata.labels, filter.labels))
}

/** Change the name and labels of an image that was made through the API. */
export async function patchImage(
  ctx: Context,
  id: string,
  body: ImagePatch,
  ifMatch: string | undefined,
): Promise<Versioned<Image>> {
  return ctx.store.write(async (tx) => {
    const image = await getOwnImage(ctx, tx.db, id)
    checkIfMatch(ifMatch, image)
    await updateResource(tx, 'image', image, patchedMetadata(image, body.metadata))
    return readImageIn(ctx, tx.db, id)
  })
}

/** Forget an image that no live instance is made from; the hosts that downloaded it are told to remove it. */
export async function deleteImage(ctx: Context, id: string): Promise<void> {
  await ctx.store.writeMakingRoom(async (tx) => {
    await getOwnImage(ctx, tx.db, id)
    const users = await listInstancesWithImage(tx.db, id, mostUsers + 1)
    if (users.length > 0) throw inUse(`Image ${id}`, users)
    await deleteImageRow(tx, id)
    for await (const { hostId, report } of reportsOfImage(tx.db, id)) {
      if (madeFor(report) !== undefined) tx.tellHosts([hostId])
    }
  })
}

/** Whether an image is known to boot by UEFI only: a host has it and found that, and none found otherwise. */
export async function needsUefi(db: Reader, image: DesiredImage): Promise<boolean> {
  let uefi = false
  for await (const { report } of reportsOfImage(db, image.id)) {
    if (stateIn(report, image) !== 'available') continue
    if (report.image?.firmware !== 'uefi') return false
    uefi = true
  }
  return uefi
}

/** One that was made through the API. Throws not_found, or read_only with what can be done instead. */
async function getOwnImage(ctx: Context, db: Reader, id: string): Promise<StoredImage> {
  const stored = await findImage(db, id)
  if (stored !== null) return stored
  if (ctx.images.has(id)) {
    throw new ApiError('read_only', `Image ${id} comes from the catalogue; change the file and restart the server.`)
  }
  if ((await findHostImage(db, id)) !== null) {
    throw new ApiError('read_only', `Image ${id} was built or imported on a host; change its files there.`)
  }
  return getImage(db, id)
}

function sourceUrlFault(text: string, allowPrivateSources: PrivateSources): string | null {
  const url = URL.parse(text)
  return url === null ? 'is not a URL' : (sourceFault(url, { allowPrivateSources })?.message ?? null)
}

/** The checksum that a body gives, in the stored form. Throws validation_failed. */
function checksumOf({ source_url: url, sha256, checksum }: ImageCreate['spec']): string {
  if (checksum === undefined) {
    if (sha256 !== undefined) return `sha256:${sha256.toLowerCase()}`
    throw validationError([{ pointer: '/spec/sha256', message: 'is required, or checksum instead of it' }])
  }
  const parsed = parseChecksum(checksum, pathOf(url))
  if ('fault' in parsed) throw validationError([{ pointer: '/spec/checksum', message: parsed.fault }])
  if (sha256 !== undefined && parsed.checksum !== `sha256:${sha256.toLowerCase()}`) {
    throw validationError([{ pointer: '/spec/checksum', message: 'is another one than sha256; give one of them' }])
  }
  return parsed.checksum
}

async function readImageIn(ctx: Context, db: Reader, id: string): Promise<Versioned<Image>> {
  const image = await findKnownImage(ctx, db, id)
  if (image === null) throw new ApiError('not_found', `There is no image ${id}.`)
  const reports: ObservedImage[] = []
  for await (const { report } of reportsOfImage(db, id)) reports.push(report)
  const stored = await findImage(db, id)
  return { document: document(image, stored, reports), etag: entityTag(stored ?? unchanged) }
}

function fromHost(image: NonNullable<ObservedImage['image']>, catalogued?: DesiredImage): DesiredImage {
  return {
    ...catalogued,
    id: image.id,
    title: image.title,
    min_disk_gb: image.min_disk_gb,
    architecture: image.architecture,
    default_user: image.default_user,
    network: image.network,
    datasource: image.datasource ?? 'disk',
    ...(image.ready_timeout_seconds === undefined ? {} : { ready_timeout_seconds: image.ready_timeout_seconds }),
  }
}

/** The version of an image that no caller made or changes. */
const unchanged = { uid: '', generation: 1 }

/** A name made of an id, which may have dots. */
function nameOf(id: string): string {
  return id.replaceAll('.', '-')
}

function document(image: DesiredImage, stored: StoredImage | null, reported: readonly ObservedImage[]): Image {
  const state = reported.reduce<ImageState>((best, report) => betterState(best, stateIn(report, image)), 'missing')
  const best = state === 'missing' ? undefined : reported.find((report) => stateIn(report, image) === state)
  return {
    id: image.id,
    metadata: {
      name: stored?.name ?? nameOf(image.id),
      labels: stored?.labels ?? {},
      created_at: stored === null ? (best?.image?.created_at ?? '') : toRfc3339(stored.created_at),
      generation: (stored ?? unchanged).generation,
    },
    spec: {
      title: image.title,
      source_url: image.source_url ?? '',
      sha256: sha256Of(image.checksum),
      checksum: image.checksum ?? '',
      min_disk_gb: image.min_disk_gb,
      architecture: image.architecture,
      default_user: image.default_user,
      network: image.network,
      datasource: image.datasource ?? 'disk',
      ready_timeout_seconds: image.ready_timeout_seconds ?? readyTimeoutSeconds.default,
    },
    status: {
      state,
      size_bytes: best?.image?.size_bytes ?? 0,
      received_bytes: best?.received_bytes ?? 0,
      reason: best?.reason ?? '',
      firmware: best?.image?.firmware ?? '',
    },
  }
}
