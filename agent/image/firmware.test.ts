import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { runCommand } from '../sys/run-command.ts'
import { failure, forever, ImageStoreFixture, sha256 } from '../testing/image-store-fixture.ts'
import { hasQemuImg } from '../testing/qemu-img.ts'
import { importImage } from './files.ts'
import { bootAreaBytes, firmwareOf } from './firmware.ts'

const withQemuImg = await hasQemuImg()

const esp = 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B'
const linux = '4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709'
const biosBoot = '21686148-6449-6E6F-744E-656564454649'
const gpt = (...types: string[]) => ['label: gpt', ...types.map((type) => `size=1MiB, type=${type}`)].join('\n')

let directory: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'berth-firmware-'))
})
afterEach(() => rm(directory, { recursive: true, force: true }))

/** A raw disk of 8 MiB that sfdisk has partitioned, with boot code in its first sector or none. */
async function disk(table: string, bootCode = ''): Promise<string> {
  const path = join(directory, 'disk.raw')
  const handle = await open(path, 'w')
  await handle.truncate(8 * 1024 ** 2)
  await handle.close()
  await runCommand(['sfdisk', '--quiet', path], { input: `${table}\n` })
  if (bootCode === '') return path
  const opened = await open(path, 'r+')
  await opened.write(Buffer.from(bootCode, 'hex'), 0, undefined, 0)
  await opened.close()
  return path
}

describe('the firmware that a disk needs', () => {
  test.each([
    ['a GPT with an ESP and nothing for the BIOS', gpt(esp, linux), '', 'uefi'],
    ['an MBR with an ESP and no boot code', 'label: dos\nsize=1MiB, type=ef', '', 'uefi'],
    [
      'both, as most cloud images: an ESP, a BIOS boot partition and boot code',
      gpt(esp, biosBoot, linux),
      'eb63',
      'bios',
    ],
    ['an ESP and boot code alone, as isohybrid and gptmbr', gpt(esp, linux), 'fa31', 'bios'],
    ['an ESP and a BIOS boot partition that is not filled', gpt(esp, biosBoot), '', 'bios'],
    ['no ESP at all', gpt(biosBoot, linux), 'eb63', 'bios'],
    ['data alone', gpt(linux), '', 'bios'],
    ['an MBR with Linux', 'label: dos\nsize=1MiB, type=83, bootable', 'fa31', 'bios'],
    ['an MBR with an ESP and boot code', 'label: dos\nsize=1MiB, type=ef, bootable', 'fa31', 'bios'],
  ])('%s', async (_, table, bootCode, firmware) => {
    const bytes = await readFile(await disk(table, bootCode))
    expect(firmwareOf(bytes.subarray(0, bootAreaBytes))).toBe(firmware)
  })

  test('a file system for UEFI without any partition', async () => {
    const path = join(directory, 'esp.raw')
    await runCommand(['mkfs.vfat', '-C', '-n', 'ESP', path, '4096'])
    expect(firmwareOf((await readFile(path)).subarray(0, bootAreaBytes))).toBe('uefi')
  })

  test('is the BIOS where a table leads out of what was read, or is cut off', async () => {
    const bytes = Buffer.from((await readFile(await disk(gpt(esp)))).subarray(0, bootAreaBytes))
    for (const [at, value] of [
      [584, 1n << 60n],
      [584, 0n],
      [592, 0xffff_ffff_ffff_ffffn],
    ] as const) {
      const other = Buffer.from(bytes)
      other.writeBigUInt64LE(value, at)
      expect(firmwareOf(other)).toBe('bios')
    }
    for (const length of [0, 511, 512, 600, 1024]) expect(firmwareOf(bytes.subarray(0, length))).toBe('bios')
  })

  test.skipIf(!withQemuImg)('is found by an import of raw and qcow2, and stands in the description', async () => {
    const images = join(directory, 'images')
    const raw = await disk(gpt(esp, linux))
    await runCommand(['qemu-img', 'convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, join(directory, 'disk.qcow2')])
    for (const file of ['disk.raw', 'disk.qcow2']) {
      const image = await importImage(join(directory, file), { id: 'uefi' }, images)
      expect(image.firmware, file).toBe('uefi')
      expect(JSON.parse(await readFile(join(images, 'uefi.json'), 'utf8')).firmware).toBe('uefi')
    }
    await runCommand([
      'qemu-img',
      'convert',
      '-f',
      'raw',
      '-O',
      'qcow2',
      await disk(gpt(esp, linux), 'eb63'),
      join(directory, 'disk.qcow2'),
    ])
    expect((await importImage(join(directory, 'disk.qcow2'), { id: 'uefi' }, images)).firmware).toBe('bios')
  })

  test.skipIf(!withQemuImg)('is found by a download, which no instance is then made from', async () => {
    const fixture = await ImageStoreFixture.open()
    try {
      const bytes = await readFile(await disk(gpt(esp, linux)))
      fixture.server.put('/disk.raw', bytes)
      const source = { source_url: fixture.server.url('/disk.raw'), checksum: `sha256:${sha256(bytes)}` }
      for (const _ of ['downloaded', 'there']) {
        const error = await failure(fixture.store.ensure(fixture.remote(source), forever()))
        expect(error).toMatchObject({ code: 'image_needs_uefi', retryable: false })
      }
      expect(fixture.server.requests).toHaveLength(1)
      expect(fixture.store.list()).toMatchObject([{ id: 'debian-12', firmware: 'uefi' }])
    } finally {
      await fixture.close()
    }
  })
})
