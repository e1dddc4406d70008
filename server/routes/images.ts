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
    about:
      'An image is a disk that instances start from: of the catalogue, built or imported on a host, or made ' +
      'known through the API. `status.state` is the best that any host reports, with the cause of a failure in ' +
      '`reason`.',
    aboutChange:
      'Name and labels of an image that was made through the API can be changed. Those of the catalogue and of ' +
      'hosts are 409 `read_only`.',
    aboutCreate:
      'It makes known an id, a URL and the checksum that its bytes must have. Nothing is downloaded before an ' +
      'instance needs it; a host then checks what it got. A URL of a loopback, link-local or shared address, or of ' +
      'the host itself, is refused unless the server allows it, at the latest when the host is about to connect.',
    aboutDelete:
      'An image is used by the instances that were created from it, until they are terminated. Hosts remove what ' +
      'they downloaded for it. Those of the catalogue and of hosts are 409 `read_only`.',
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
