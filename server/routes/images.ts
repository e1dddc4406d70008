import { Image, ImageList } from '@berth/contract/images.ts'
import type { Context } from '../context.ts'
import { readImage, readImages } from '../domain/images.ts'
import type { Api } from './api.ts'
import { PageQuery, pageInMemory, readRoutes } from './resource-routes.ts'

/** /v1/images */
export function imageRoutes(api: Api, ctx: Context): void {
  readRoutes(api, {
    plural: 'images',
    noun: 'Image',
    one: Image,
    many: ImageList,
    get: (id) => readImage(ctx, id),
    query: PageQuery,
    list: async (_filter, page) => pageInMemory(await readImages(ctx), page),
  })
}
