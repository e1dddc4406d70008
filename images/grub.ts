import { Buffer } from 'node:buffer'

/** GRUB's boot sector and the image it loads, ready to be written to a disk. */
export interface GrubParts {
  /** The first 440 bytes of the disk; what follows them belongs to the partition table. */
  bootCode: Buffer
  /** Written at the start of the BIOS boot partition. */
  core: Buffer
}

const sectorBytes = 512
const bootCodeBytes = 440

// Offsets from GRUB 2's sources: include/grub/i386/pc/boot.h and grub-core/boot/i386/pc/{boot,diskboot}.S.
const kernelSectorOffset = 0x5c
const driveCheckOffset = 0x66
const firstBlockOffset = 0x1f4

/**
 * Fit GRUB's `boot.img` and a `core.img` made by grub-mkimage to a core that starts at disk sector `coreSector`.
 * Does what grub-bios-setup does, which wants a block device and so cannot be used on a file. Pure.
 */
export function patchGrub(bootImage: Uint8Array, coreImage: Uint8Array, coreSector: number): GrubParts {
  if (bootImage.length !== sectorBytes) throw new Error(`boot.img has ${bootImage.length} bytes instead of 512`)
  if (coreImage.length <= sectorBytes) throw new Error(`core.img is too short: ${coreImage.length} bytes`)
  const bootCode = Buffer.from(bootImage.subarray(0, bootCodeBytes))
  bootCode.writeBigUInt64LE(BigInt(coreSector), kernelSectorOffset)
  // Two no-operations instead of the jump that takes the drive number from floppy-era rules.
  bootCode.writeUInt16LE(0x9090, driveCheckOffset)
  const core = Buffer.from(coreImage)
  // The core's first sector loads the rest, which follows it without a gap.
  core.writeBigUInt64LE(BigInt(coreSector + 1), firstBlockOffset)
  return { bootCode, core }
}
