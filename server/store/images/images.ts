import type { ImageDatasource, ImageNetwork } from '@berth/contract/images/images.ts'
import type { Static } from 'typebox'
import { ApiError } from '../../api-error.ts'
import { prepare } from '../engine/prepared.ts'
import type { ImageRow } from '../schema.ts'
import type { Reader, Transaction } from '../transaction.ts'
import { firstVersion } from '../versions.ts'

/** An image that was made through the API, as stored. Those of the catalogue and of hosts are not here. */
export interface StoredImage extends Omit<ImageRow, 'labels' | 'network' | 'datasource'> {
  labels: Record<string, string>
  network: Static<typeof ImageNetwork>
  datasource: Static<typeof ImageDatasource>
}

const byId = prepare((db, place) => db.selectFrom('images').selectAll().where('id', '=', place('id')))

export async function findImage(db: Reader, id: string): Promise<StoredImage | null> {
  const row = await byId.first(db, { id })
  return row === undefined ? null : parse(row)
}

/** The image. Throws not_found. */
export async function getImage(db: Reader, id: string): Promise<StoredImage> {
  const image = await findImage(db, id)
  if (image === null) throw new ApiError('not_found', `There is no image ${id}.`)
  return image
}

/** All of them, by id. */
export async function listImages(db: Reader): Promise<StoredImage[]> {
  return (await db.selectFrom('images').selectAll().orderBy('id').execute()).map(parse)
}

export async function insertImage(tx: Transaction, image: Omit<StoredImage, 'uid' | 'generation'>): Promise<void> {
  await tx.db
    .insertInto('images')
    .values({ ...image, labels: JSON.stringify(image.labels), ...firstVersion() })
    .execute()
  tx.changed({ resource: 'image', id: image.id, action: 'created' })
}

export async function deleteImage(tx: Transaction, id: string): Promise<void> {
  await tx.db.deleteFrom('images').where('id', '=', id).execute()
  tx.changed({ resource: 'image', id, action: 'deleted' })
}

/** Live instances that are made from an image, at most `limit`. */
export async function listInstancesWithImage(db: Reader, id: string, limit: number): Promise<string[]> {
  const rows = await db
    .selectFrom('instances')
    .select('id')
    .where('image', '=', id)
    .where('terminated_at', 'is', null)
    .orderBy('id')
    .limit(limit)
    .execute()
  return rows.map((row) => row.id)
}

function parse(row: ImageRow): StoredImage {
  return {
    ...row,
    labels: JSON.parse(row.labels),
    network: row.network === 'dhcp' ? 'dhcp' : 'static',
    datasource: row.datasource === 'network' ? 'network' : 'disk',
  }
}
