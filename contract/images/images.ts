import Type, { type Static } from 'typebox'
import { imageIdPattern } from '../ids.ts'
import {
  Labels,
  MetadataInput,
  MetadataPatch,
  Name,
  named,
  oneOf,
  pageOf,
  strict,
  TimestampOrEmpty,
} from '../schema.ts'
import { readyTimeoutSeconds } from './bounds.ts'

/**
 * A checksum in the one form in which it is stored, sent between processes and compared: `sha256:` or `sha512:` and
 * lower-case hexadecimal.
 */
export const Checksum = Type.String({ pattern: '^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$' })

/** The id of an image is its name: `ubuntu-22.04`, `micro`. */
export const ImageId = Type.String({ pattern: imageIdPattern, maxLength: 63 })

/** How the seed tells a guest its address: written in network-config, or left to DHCP (which serves the same one). */
export const ImageNetwork = oneOf(['static', 'dhcp'])

const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' })

/**
 * Where a guest finds its seed: on a disk of its own, or at the metadata service, which it is led to by the serial number
 * of its machine (docs/metadata.md). `disk` where it is not said.
 */
export const ImageDatasource = oneOf(['disk', 'network'])

const ReadyTimeoutSeconds = Type.Integer({
  minimum: readyTimeoutSeconds.minimum,
  maximum: readyTimeoutSeconds.maximum,
  description:
    'Seconds from the start of its CPUs in which a guest says that its first boot is over; after them `GuestReady` has the ' +
    `reason nothing_heard. Six times as long on a host that emulates CPUs. ${readyTimeoutSeconds.default} unless given`,
})

const imageFields = {
  title: Type.String({ minLength: 1, maxLength: 200 }),
  min_disk_gb: Type.Integer({ minimum: 1, maximum: 65_536, description: 'Smallest disk the image fits on, GiB' }),
  architecture: Type.Literal('x86_64'),
  default_user: Type.String({ pattern: '^[a-z_][a-z0-9_-]{0,31}$', description: 'Account that gets the SSH keys' }),
  network: ImageNetwork,
  datasource: Type.Optional(ImageDatasource),
  ready_timeout_seconds: Type.Optional(ReadyTimeoutSeconds),
}

/**
 * One entry of a catalogue of images. An image comes either from `source_url` (http or https; checked against
 * `checksum`, or against the line for its file name in the checksum file at `checksum_url`), or from a recipe that
 * `berth image build <id>` runs on the host.
 */
export const CatalogueImage = Type.Object(
  {
    id: ImageId,
    ...imageFields,
    source_url: Type.Optional(Type.String({ pattern: '^https?://', maxLength: 2048 })),
    checksum: Type.Optional(Checksum),
    checksum_url: Type.Optional(Type.String({ pattern: '^https?://', maxLength: 2048 })),
    recipe: Type.Optional(Type.String({ pattern: '^[a-z0-9-]{1,63}$' })),
  },
  { additionalProperties: false },
)
export type CatalogueImage = Static<typeof CatalogueImage>

/** What a machine must have to boot an image: `uefi` where its disk has nothing that a BIOS could run. */
const imageFirmwares = ['bios', 'uefi'] as const

/** No control characters and no line ends, those of Unicode included. */
const lineText = '^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]*$'

/** Where the bytes of an image are downloaded from: visible ASCII alone, so that a URL ends where it seems to. */
const SourceUrl = Type.String({
  pattern: '^https?://[!-~]+$',
  maxLength: 2048,
  description: 'http or https, without credentials, never of an address of the host itself or its link',
  examples: ['https://images.example/disk.qcow2'],
})

/**
 * A host marks with it what it downloaded for an image that was made through the API: the checksum of that image. It
 * tells such a file from one of the catalogue, and from one of an image that had the id before.
 */
export const RegisteredChecksum = Type.String({
  ...Checksum,
  description: 'Checksum of the image made through the API',
})

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
    sha256: Sha256,
    registered_checksum: Type.Optional(RegisteredChecksum),
    firmware: Type.Optional(oneOf(imageFirmwares)),
    size_bytes: Type.Integer({ minimum: 0 }),
    virtual_size_bytes: Type.Integer({ minimum: 0 }),
    created_at: Type.String({ maxLength: 40 }),
  },
  { additionalProperties: false },
)
export type HostImage = Static<typeof HostImage>

/** `missing` on every host; else the best that a host reports, `available` before `downloading` before `failed`. */
export const imageStates = ['missing', 'downloading', 'available', 'failed'] as const
export type ImageState = (typeof imageStates)[number]

const ImageMetadata = Type.Object(
  {
    name: Name,
    labels: Labels,
    created_at: TimestampOrEmpty,
    generation: Type.Integer({ minimum: 1, description: 'Rises with every change by a caller' }),
  },
  strict,
)

export const ImageCreate = named(
  'ImageCreate',
  Type.Object(
    {
      id: Type.String({ ...ImageId, description: 'Its name: `fedora-43`', examples: ['fedora-43', 'team-base'] }),
      metadata: Type.Optional(MetadataInput),
      spec: Type.Object(
        {
          title: Type.Optional(
            Type.String({ ...imageFields.title, pattern: lineText, description: 'The id when absent' }),
          ),
          source_url: SourceUrl,
          sha256: Type.Optional(
            Type.String({
              pattern: '^[0-9a-fA-F]{64}$',
              description: 'SHA-256 of the file at source_url; either this or `checksum` must be there',
            }),
          ),
          checksum: Type.Optional(
            Type.String({
              maxLength: 4096,
              description:
                'Of the file at source_url: `sha512:HEX`, `sha256:HEX`, digits alone, or lines of a checksum file',
              examples: [`sha512:${'0123456789abcdef'.repeat(8)}`],
            }),
          ),
          min_disk_gb: imageFields.min_disk_gb,
          architecture: Type.Optional(imageFields.architecture),
          default_user: imageFields.default_user,
          network: Type.Optional(ImageNetwork),
          datasource: imageFields.datasource,
          ready_timeout_seconds: imageFields.ready_timeout_seconds,
        },
        strict,
      ),
    },
    strict,
  ),
)
export type ImageCreate = Static<typeof ImageCreate>

export const ImagePatch = named('ImagePatch', Type.Object({ metadata: Type.Optional(MetadataPatch) }, strict))
export type ImagePatch = Static<typeof ImagePatch>

/**
 * Whether an image on a host is the one that is wanted. What was built or imported there under the id always is, as an
 * operator brought it; a download only when it was made for the same: the catalogue's image, or one that was made
 * through the API with the same checksum. Pure.
 */
export function isWantedImage(
  held: { origin: HostImage['origin']; registered_checksum?: string | undefined },
  wanted: { registered?: true | undefined; checksum?: string | undefined },
): boolean {
  if (held.origin !== 'downloaded') return true
  return held.registered_checksum === (wanted.registered ? wanted.checksum : undefined)
}

/** What callers see of an image, from the catalogue, a host or the API, with what hosts report of it. */
export const Image = named(
  'Image',
  Type.Object(
    {
      id: ImageId,
      metadata: ImageMetadata,
      spec: Type.Object(
        {
          title: imageFields.title,
          source_url: Type.String({ description: '"" when it is built or imported on a host' }),
          sha256: Type.String({ description: '"" when another checksum or none is known beforehand' }),
          checksum: Type.String({ description: '`sha256:…` or `sha512:…`; "" when none is known beforehand' }),
          min_disk_gb: imageFields.min_disk_gb,
          architecture: Type.String(),
          default_user: Type.String(),
          network: ImageNetwork,
          datasource: ImageDatasource,
          ready_timeout_seconds: ReadyTimeoutSeconds,
        },
        strict,
      ),
      status: Type.Object(
        {
          state: oneOf(imageStates),
          size_bytes: Type.Integer({ minimum: 0 }),
          received_bytes: Type.Integer({ minimum: 0, description: 'Progress of a download' }),
          reason: Type.String(),
          firmware: oneOf(['', ...imageFirmwares], {
            description:
              'What it needs to boot, as a host that has it found; "" while none has. `uefi` is refused for now',
          }),
        },
        strict,
      ),
    },
    strict,
  ),
)
export type Image = Static<typeof Image>

export const ImageList = named('ImageList', pageOf(Image))
