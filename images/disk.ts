import { copyFile, mkdir, open, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { patchGrub } from './grub.ts'

/** The label by which GRUB, the initrd and fstab find the root file system. */
export const rootLabel = 'cloudimg-rootfs'

const mib = 1024 * 1024
const sectorsPerMib = mib / 512
const bootPartition = { number: 14, startMib: 1, sizeMib: 3 }
const rootStartMib = bootPartition.startMib + bootPartition.sizeMib
/** The backup of the partition table stands in the disk's last sectors. */
const backupTableMib = 1

// Named one by one because the default set depends on the host's e2fsprogs, and GRUB 2.06 cannot read the newest.
const ext4Features =
  'none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum'

const grubModules = ['biosdisk', 'part_gpt', 'ext2', 'linux', 'search', 'search_label', 'echo', 'serial', 'terminal']

/**
 * The layout that cloud images have, as a script for sfdisk: partition 14 for GRUB's core, partition 1, the last on
 * the disk so that it can grow, for the root. Types: BIOS boot (21686148-…), Linux root x86-64 (4F68BCE3-…).
 */
export function renderPartitionTable(diskMib: number): string {
  const rootMib = rootPartitionMib(diskMib)
  return [
    'label: gpt',
    'first-lba: 34',
    `${bootPartition.number}: start=${bootPartition.startMib * sectorsPerMib}, size=${bootPartition.sizeMib * sectorsPerMib}, type=21686148-6449-6E6F-744E-656564454649`,
    `1: start=${rootStartMib * sectorsPerMib}, size=${rootMib * sectorsPerMib}, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709`,
    '',
  ].join('\n')
}

function rootPartitionMib(diskMib: number): number {
  const rootMib = diskMib - rootStartMib - backupTableMib
  if (rootMib < 1) throw new Error(`a disk of ${diskMib} MiB has no room for a root partition`)
  return rootMib
}

export interface DiskOptions {
  /** The finished root file system, with GRUB's configuration in /boot/grub/grub.cfg. */
  rootDirectory: string
  /** A Debian tree that holds grub-mkimage and GRUB's i386-pc files; may be the root directory itself. */
  grubTree: string
  /**
   * Commands for GRUB's built-in parser, run instead of reading grub.cfg through the "normal" module; that saves its
   * load time where there is no menu. A path on the host.
   */
  embeddedConfigPath?: string
  diskMib: number
  diskPath: string
  signal: AbortSignal
}

/** Write a bootable raw disk image: partition table, ext4 root filled from a directory, GRUB for BIOS. No loop device. */
export async function writeDisk(options: DiskOptions): Promise<void> {
  const { diskPath, diskMib, signal } = options
  const disk = await open(diskPath, 'w')
  await disk.truncate(diskMib * mib)
  await disk.close()
  await runCommand(['sfdisk', '--quiet', diskPath], { input: renderPartitionTable(diskMib), signal })
  const extended = `offset=${rootStartMib * mib},lazy_itable_init=1,lazy_journal_init=1`
  await runCommand(
    [
      ...['mke2fs', '-q', '-F', '-t', 'ext4', '-b', '4096', '-I', '256', '-m', '0', '-O', ext4Features],
      ...['-L', rootLabel, '-E', extended, '-d', options.rootDirectory, diskPath, `${rootPartitionMib(diskMib)}M`],
    ],
    { signal, timeoutMs: 10 * 60_000 },
  )
  await writeGrub(options)
}

async function writeGrub(options: DiskOptions): Promise<void> {
  const { grubTree, embeddedConfigPath, diskPath, signal } = options
  const corePath = '/tmp/berth-core.img'
  const configPath = '/tmp/berth-grub.cfg'
  await mkdir(join(grubTree, 'tmp'), { recursive: true })
  const embedded = embeddedConfigPath !== undefined
  if (embedded) await copyFile(embeddedConfigPath, join(grubTree, configPath))
  // grub-mkimage of the tree, not of the host: it fits the tree's modules, and Ubuntu's package brings a service along.
  // An empty drive in the prefix means the one that GRUB was started from.
  await runCommand(
    [
      ...['chroot', grubTree, '/usr/bin/grub-mkimage', '-O', 'i386-pc', '-o', corePath, '-p', '(,gpt1)/boot/grub'],
      ...(embedded ? ['-c', configPath] : []),
      ...grubModules,
      ...(embedded ? ['boot'] : ['normal', 'configfile', 'test']),
    ],
    { signal },
  )
  const bootImage = await readFile(join(grubTree, 'usr/lib/grub/i386-pc/boot.img'))
  const coreImage = await readFile(join(grubTree, corePath))
  await rm(join(grubTree, corePath))
  await rm(join(grubTree, configPath), { force: true })
  if (coreImage.length > bootPartition.sizeMib * mib)
    throw new Error(`core.img has ${coreImage.length} bytes: too large`)
  const coreSector = bootPartition.startMib * sectorsPerMib
  const { bootCode, core } = patchGrub(bootImage, coreImage, coreSector)
  const disk = await open(diskPath, 'r+')
  try {
    await disk.write(bootCode, 0, bootCode.length, 0)
    await disk.write(core, 0, core.length, coreSector * 512)
  } finally {
    await disk.close()
  }
}

/** Convert a raw disk to a compressed qcow2 at `path`. zlib, since QEMU before 5.1 reads nothing else. */
export async function writeCompressedQcow2(rawPath: string, path: string, signal: AbortSignal): Promise<void> {
  await runCommand(['qemu-img', 'convert', '-c', '-f', 'raw', '-O', 'qcow2', rawPath, path], {
    signal,
    timeoutMs: 10 * 60_000,
  })
  await runCommand(['qemu-img', 'check', '-q', '-f', 'qcow2', path], { signal, timeoutMs: 60_000 })
}
