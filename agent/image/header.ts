/** What is wrong with a file that was offered as an image; stable strings, in the order they are looked for. */
export type ForeignImageCode =
  | 'not_an_image'
  | 'unsupported_format'
  | 'unknown_features'
  | 'has_backing_file'
  | 'has_data_file'
  | 'encrypted'
  | 'too_large'
  | 'damaged'

/** A file that is refused as a guest image; the message is meant for the person who offered it. */
export class ForeignImageError extends Error {
  readonly code: ForeignImageCode

  constructor(code: ForeignImageCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'ForeignImageError'
    this.code = code
  }
}

/** What Berth takes as an image, told from its own first bytes. Sizes in bytes. */
export interface ImageFormat {
  format: 'qcow2' | 'raw'
  virtualSizeBytes: number
}

/** The parts of a file that `identifyImage` looks at; both buffers are shorter when the file is. */
export interface ImageEnds {
  /** The first `imageHeadBytes` of the file. */
  head: Buffer
  /** The last 512 bytes: fixed VHD and DMG carry their signature there. */
  tail: Buffer
  sizeBytes: number
}

/** How much of the start of a file `identifyImage` needs. */
export const imageHeadBytes = 4096

/** The largest disk an image may describe: 64 TiB, as large as `min_disk_gb` can say. */
const maxVirtualSizeBytes = 64 * 1024 ** 4

/**
 * Tell qcow2 and raw disk images from everything else, by content and without running anything on it.
 * This comes before qemu-img sees the file, so that qemu-img never guesses a format and never follows a reference to
 * another file (CVE-2024-4467 was such a guess). Throws ForeignImageError. Pure.
 */
export function identifyImage(ends: ImageEnds): ImageFormat {
  const { head, tail, sizeBytes } = ends
  if (sizeBytes === 0) throw new ForeignImageError('not_an_image', 'the file is empty')
  if (head.subarray(0, 4).equals(qcowMagic)) return parseQcow2Header(head, sizeBytes)
  refuseOtherFormats(head, tail)
  if (head.length < 512 || head.readUInt16LE(510) !== 0xaa55) {
    throw new ForeignImageError(
      'not_an_image',
      'not a disk image: neither a qcow2 header nor a partition table or boot sector (55 AA at byte 510)',
    )
  }
  refuseSize(sizeBytes)
  return { format: 'raw', virtualSizeBytes: sizeBytes }
}

const qcowMagic = Buffer.from('QFI\xfb', 'latin1')

// Bits of incompatible_features: QEMU, docs/interop/qcow2.txt.
const dirtyBit = 1n << 0n
const corruptBit = 1n << 1n
const dataFileBit = 1n << 2n
const compressionTypeBit = 1n << 3n
const extendedL2Bit = 1n << 4n
const knownBits = dirtyBit | corruptBit | dataFileBit | compressionTypeBit | extendedL2Bit

/** Read a qcow2 header (QEMU, docs/interop/qcow2.txt) and refuse what must not run as an image. */
function parseQcow2Header(head: Buffer, sizeBytes: number): ImageFormat {
  const version = head.length >= 8 ? head.readUInt32BE(4) : 0
  if (version !== 2 && version !== 3) {
    throw new ForeignImageError('unsupported_format', `qcow version ${version} is not supported, only qcow2 (2 and 3)`)
  }
  if (head.length < (version === 2 ? 72 : 104)) throw new ForeignImageError('damaged', 'the qcow2 header is cut off')
  const features = version === 2 ? 0n : head.readBigUInt64BE(72)
  refuseFeatures(features)
  if (head.readBigUInt64BE(8) !== 0n || head.readUInt32BE(16) !== 0) {
    throw new ForeignImageError(
      'has_backing_file',
      'the image is an overlay with a backing file; flatten it first: qemu-img convert -O qcow2 IMAGE FLAT',
    )
  }
  if (head.readUInt32BE(32) !== 0) throw new ForeignImageError('encrypted', 'the image is encrypted')
  const clusterBits = head.readUInt32BE(20)
  if (clusterBits < 9 || clusterBits > 21) {
    throw new ForeignImageError('damaged', `the qcow2 header names impossible clusters of 2^${clusterBits} bytes`)
  }
  const virtualSize = head.readBigUInt64BE(24)
  if (virtualSize > BigInt(maxVirtualSizeBytes)) refuseSize(Number(virtualSize))
  if (virtualSize === 0n) throw new ForeignImageError('damaged', 'the image describes a disk of 0 bytes')
  const l1End = head.readBigUInt64BE(40) + BigInt(head.readUInt32BE(36)) * 8n
  const refcountEnd = head.readBigUInt64BE(48) + (BigInt(head.readUInt32BE(56)) << BigInt(clusterBits))
  // QEMU lets the very last table be cut at the end of the file, so only the start of the refcount table must exist.
  const refcountStart = head.readBigUInt64BE(48)
  if (l1End > BigInt(sizeBytes) || refcountStart >= BigInt(sizeBytes) || refcountEnd >= 1n << 63n) {
    throw new ForeignImageError('damaged', 'the file is shorter than its qcow2 header says; it was probably cut off')
  }
  return { format: 'qcow2', virtualSizeBytes: Number(virtualSize) }
}

function refuseFeatures(features: bigint): void {
  const unknown = features & ~knownBits
  if (unknown !== 0n) {
    throw new ForeignImageError(
      'unknown_features',
      `the image uses qcow2 features this version does not know (incompatible_features 0x${features.toString(16)})`,
    )
  }
  if ((features & dataFileBit) !== 0n) {
    throw new ForeignImageError(
      'has_data_file',
      'the image keeps its data in another file; join them first: qemu-img convert -O qcow2 IMAGE WHOLE',
    )
  }
  if ((features & (dirtyBit | corruptBit)) !== 0n) {
    throw new ForeignImageError(
      'damaged',
      'the image is marked dirty or corrupt (copied while in use?); repair it first: qemu-img check -r all IMAGE',
    )
  }
}

function refuseSize(bytes: number): void {
  if (bytes <= maxVirtualSizeBytes) return
  const tib = (bytes / 1024 ** 4).toFixed(0)
  throw new ForeignImageError('too_large', `the image describes a disk of ${tib} TiB; at most 64 TiB are supported`)
}

interface Signature {
  name: string
  at: number
  bytes: Buffer
}

const signature = (name: string, text: string, at = 0): Signature => ({ name, at, bytes: Buffer.from(text, 'latin1') })

const diskFormats: readonly Signature[] = [
  signature('VMDK', 'KDMV'),
  signature('VMDK', 'COWD'),
  signature('VMDK', '# Disk DescriptorFile'),
  signature('VDI', '\x7f\x10\xda\xbe', 64),
  signature('VHD', 'conectix'),
  signature('VHDX', 'vhdxfile'),
  signature('QED', 'QED\0'),
  signature('Parallels', 'WithoutFreeSpace'),
  signature('Parallels', 'WithouFreSpacExt'),
  signature('Bochs', 'Bochs Virtual HD Image'),
  signature('LUKS', 'LUKS\xba\xbe'),
]

const archives: readonly Signature[] = [
  signature('gzip', '\x1f\x8b'),
  signature('xz', '\xfd7zXZ\0'),
  signature('zstd', '\x28\xb5\x2f\xfd'),
  signature('bzip2', 'BZh'),
  signature('zip', 'PK\x03\x04'),
  signature('7z', '7z\xbc\xaf\x27\x1c'),
  signature('tar', 'ustar', 257),
]

const diskFormatTrailers: readonly Signature[] = [signature('VHD', 'conectix'), signature('DMG', 'koly')]

function refuseOtherFormats(head: Buffer, tail: Buffer): void {
  const disk = find(diskFormats, head) ?? find(diskFormatTrailers, tail)
  if (disk !== undefined) {
    throw new ForeignImageError(
      'unsupported_format',
      `${disk} images are not supported, only qcow2 and raw; convert it first: qemu-img convert -O qcow2 IMAGE OUT`,
    )
  }
  const archive = find(archives, head)
  if (archive !== undefined) {
    throw new ForeignImageError('unsupported_format', `the file is a ${archive} archive; unpack the image first`)
  }
  if (/^\s*<(?:!doctype|html|\?xml)/i.test(head.subarray(0, 256).toString('latin1'))) {
    throw new ForeignImageError('not_an_image', 'not a disk image: the file is a web page or XML document')
  }
}

function find(signatures: readonly Signature[], bytes: Buffer): string | undefined {
  return signatures.find((one) => bytes.subarray(one.at, one.at + one.bytes.length).equals(one.bytes))?.name
}
