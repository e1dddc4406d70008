import type { HostImage } from '@berth/contract/images/images.ts'

/** How much of the start of a disk `firmwareOf` needs, bytes: boot sector, GPT header and its table of 128 entries. */
export const bootAreaBytes = 34 * 512

/** Type ids of partitions as a GPT stores them, their first three fields in little-endian order (UEFI, 5.3.3). */
const efiSystem = Buffer.from('28732ac11ff8d211ba4b00a0c93ec93b', 'hex') // C12A7328-F81F-11D2-BA4B-00A0C93EC93B
const biosBoot = Buffer.from('4861682149646f6e744e656564454649', 'hex') // 21686148-6449-6E6F-744E-656564454649

/**
 * The firmware that a disk needs, told from its first bytes. `uefi` only where the BIOS would find nothing to run: no
 * boot code in the first sector and no BIOS boot partition, but an EFI system partition, be it in a GPT, in an MBR or
 * the whole disk. Everything else, also what boots by both and what boots by neither, is `bios`. Pure.
 */
export function firmwareOf(bootArea: Buffer): NonNullable<HostImage['firmware']> {
  if (bootArea.length < 512) return 'bios'
  if (isFatWithoutLoader(bootArea)) return 'uefi'
  // The BIOS runs the first 440 bytes, whatever the partitions are; behind them are a disk id and the MBR's table.
  if (bootArea.subarray(0, 440).some((byte) => byte !== 0)) return 'bios'
  const types = gptTypes(bootArea)
  if (types !== null) return types.some((type) => type.equals(efiSystem)) && !types.some(isBiosBoot) ? 'uefi' : 'bios'
  return mbrTypes(bootArea).includes(0xef) ? 'uefi' : 'bios'
}

const isBiosBoot = (type: Buffer) => type.equals(biosBoot)

/** A FAT file system from the first sector on, with the boot code of mkfs.fat(8), which only prints this. */
function isFatWithoutLoader(bootArea: Buffer): boolean {
  return (
    /FAT(?:12|16|32) {3}/.test(bootArea.toString('latin1', 54, 90)) &&
    bootArea.subarray(0, 512).includes('This is not a bootable disk')
  )
}

/** The types of the partitions of a GPT, null when there is none that can be read here. */
function gptTypes(bootArea: Buffer): Buffer[] | null {
  if (bootArea.toString('latin1', 512, 520) !== 'EFI PART' || bootArea.length < bootAreaBytes) return null
  const start = Number(bootArea.readBigUInt64LE(512 + 72)) * 512
  const [count, size] = [bootArea.readUInt32LE(512 + 80), bootArea.readUInt32LE(512 + 84)]
  if (start < 1024 || size < 128 || start + count * size > bootArea.length) return null
  return Array.from({ length: count }, (_, index) => bootArea.subarray(start + index * size, start + index * size + 16))
}

/** The types of the four partitions of an MBR. */
function mbrTypes(bootArea: Buffer): number[] {
  if (bootArea.readUInt16LE(510) !== 0xaa55) return []
  return [0, 1, 2, 3].map((index) => bootArea.readUInt8(446 + index * 16 + 4))
}
