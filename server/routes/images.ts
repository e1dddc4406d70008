import { Image, ImageCreate, ImageList, ImagePatch } from '@berth/contract/images/images.ts'
import type { Context } from '../context.ts'
import { createImage, deleteImage, patchImage, readImage, readImages } from '../domain/images/images.ts'
import type { Api } from '../http/api.ts'
import { withLabels } from './conventions/list-page.ts'
import { ownedRoutes, pageInMemory } from './conventions/resource-routes.ts'

/** /v1/images */
export function imageRoutes(api: Api, ctx: Context): void {
  ownedRoutes(api, ctx, {
    plural: 'images',
    noun: 'Image',
    aNoun: 'an image',
    one: Image,
    many: ImageList,
    body: ImageCreate,
    patchBody: ImagePatch,
    ownProblems: ['read_only'],
    get: (id) => readImage(ctx, id),
    list: async (filter, page) => pageInMemory(await readImages(ctx, withLabels(filter)), page),
    create: (tx, body: ImageCreate) => createImage(ctx, tx, body),
    patch: (id, body: ImagePatch, ifMatch) => patchImage(ctx, id, body, ifMatch),
    remove: (id) => deleteImage(ctx, id),
  })
}
