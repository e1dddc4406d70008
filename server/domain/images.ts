import type { ObservedImage } from '@berth/contract/host.ts'
import type { CatalogueImage, Image } from '@berth/contract/images.ts'
import { ApiError } from '../api-error.ts'
import type { Context } from '../context.ts'
import { findHostImage, listHosts } from '../store/hosts.ts'
import type { Reader } from '../store/store.ts'

/**
 * The image under an id, or null: as a host holds it (what it holds wins over the catalogue, also in its sizes), else
 * as the catalogue describes it.
 */
export async function findKnownImage(ctx: Context, db: Reader, id: string): Promise<CatalogueImage | null> {
  const held = await findHostImage(db, id)
  return held === null ? (ctx.images.get(id) ?? null) : fromHost(held, ctx.images.get(id))
}

/** The catalogue's image, or one that only hosts have. */
export async function readImage(ctx: Context, id: string): Promise<Image> {
  const image = (await readImages(ctx)).find((candidate) => candidate.id === id)
  if (image === undefined) throw new ApiError('not_found', `There is no image ${id}.`)
  return image
}

/** Every image of the catalogue and of the hosts, by id. */
export async function readImages(ctx: Context): Promise<Image[]> {
  const reported = await reportedImages(ctx.store.read)
  const known = new Map(ctx.images)
  for (const { image } of reported) if (image !== null) known.set(image.id, fromHost(image, ctx.images.get(image.id)))
  return [...known.values()]
    .sort((a, b) => (a.id < b.id ? -1 : 1))
    .map((image) =>
      document(
        image,
        reported.filter((candidate) => candidate.id === image.id),
      ),
    )
}

async function reportedImages(db: Reader): Promise<ObservedImage[]> {
  return (await listHosts(db)).flatMap((host) => host.images)
}

function fromHost(image: NonNullable<ObservedImage['image']>, catalogued?: CatalogueImage): CatalogueImage {
  return {
    ...catalogued,
    id: image.id,
    title: image.title,
    min_disk_gb: image.min_disk_gb,
    architecture: image.architecture,
    default_user: image.default_user,
    network: image.network,
  }
}

function document(image: CatalogueImage, reported: readonly ObservedImage[]): Image {
  const order = ['available', 'downloading', 'failed'] as const
  const best = order.map((state) => reported.find((candidate) => candidate.state === state)).find((found) => found)
  return {
    id: image.id,
    metadata: { name: image.id.replaceAll('.', '-'), labels: {}, created_at: best?.image?.created_at ?? '' },
    spec: {
      title: image.title,
      source_url: image.source_url ?? '',
      sha256: image.sha256 ?? '',
      min_disk_gb: image.min_disk_gb,
      architecture: image.architecture,
      default_user: image.default_user,
      network: image.network,
    },
    status: {
      state: best?.state ?? 'missing',
      size_bytes: best?.image?.size_bytes ?? 0,
      received_bytes: best?.received_bytes ?? 0,
      reason: best?.reason ?? '',
    },
  }
}
