import Type, { type Static } from 'typebox'
import { Labels, Name, named, oneOf, pageOf, strict, TimestampOrEmpty } from './schema.ts'

/** The id of an image is its name: `ubuntu-22.04`, `micro`. Also a file name, so the pattern is narrow. */
export const imageIdPattern = '^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$'

export const ImageId = Type.String({ pattern: imageIdPattern, maxLength: 63 })

/** How the seed tells a guest its address: written in network-config, or left to DHCP (which serves the same one). */
export const ImageNetwork = oneOf(['static', 'dhcp'])

const imageFields = {
  title: Type.String({ minLength: 1, maxLength: 200 }),
  min_disk_gb: Type.Integer({ minimum: 1, maximum: 65_536, description: 'Smallest disk the image fits on, GiB' }),
  architecture: Type.Literal('x86_64'),
  default_user: Type.String({ pattern: '^[a-z_][a-z0-9_-]{0,31}$', description: 'Account that gets the SSH keys' }),
  network: ImageNetwork,
}

/**
 * One entry of `images/catalogue.yaml`. An image comes either from `source_url` (http or https; checked against
 * `sha256`, or against the line for its file name in the checksum file at `checksum_url`), or from a recipe that
 * `berth image build <id>` runs on the host.
 */
export const CatalogueImage = Type.Object(
  {
    id: ImageId,
    ...imageFields,
    source_url: Type.Optional(Type.String({ pattern: '^https?://', maxLength: 2048 })),
    sha256: Type.Optional(Type.String({ pattern: '^[0-9a-f]{64}$' })),
    checksum_url: Type.Optional(Type.String({ pattern: '^https?://', maxLength: 2048 })),
    recipe: Type.Optional(Type.String({ pattern: '^[a-z0-9-]{1,63}$' })),
  },
  { additionalProperties: false },
)
export type CatalogueImage = Static<typeof CatalogueImage>

/**
 * The file `<data>/images/<id>.json` beside `<id>.qcow2`: written last, by rename, so an image whose JSON exists is
 * whole. Sizes are bytes; `sha256` is that of the qcow2 file as stored.
 */
export const HostImage = Type.Object(
  {
    id: ImageId,
    ...imageFields,
    origin: oneOf(['built', 'imported', 'downloaded']),
    source_url: Type.String({ maxLength: 2048, description: '"" unless downloaded' }),
    sha256: Type.String({ pattern: '^[0-9a-f]{64}$' }),
    size_bytes: Type.Integer({ minimum: 0 }),
    virtual_size_bytes: Type.Integer({ minimum: 0 }),
    created_at: Type.String({ maxLength: 40 }),
  },
  { additionalProperties: false },
)
export type HostImage = Static<typeof HostImage>

/** What callers see of an image: the catalogue's entry with what hosts report of it. */
export const Image = named(
  'Image',
  Type.Object(
    {
      id: ImageId,
      metadata: Type.Object({ name: Name, labels: Labels, created_at: TimestampOrEmpty }, strict),
      spec: Type.Object(
        {
          title: imageFields.title,
          source_url: Type.String({ description: '"" when it is built or imported on a host' }),
          sha256: Type.String({ description: '"" when not known beforehand' }),
          min_disk_gb: imageFields.min_disk_gb,
          architecture: Type.String(),
          default_user: Type.String(),
          network: ImageNetwork,
        },
        strict,
      ),
      status: Type.Object(
        {
          state: oneOf(['missing', 'downloading', 'available', 'failed']),
          size_bytes: Type.Integer({ minimum: 0 }),
          received_bytes: Type.Integer({ minimum: 0, description: 'Progress of a download' }),
          reason: Type.String(),
        },
        strict,
      ),
    },
    strict,
  ),
)
export type Image = Static<typeof Image>

export const ImageList = named('ImageList', pageOf(Image))
