import { Buffer } from 'node:buffer'
import { renderPartitionTable } from '@berth/images/disk.ts'
import { patchGrub } from '@berth/images/grub.ts'
import { renderCpio } from '@berth/images/initrd.ts'
import { expect, test } from 'vitest'

test('the root partition is the last one and leaves room for the backup table', () => {
  expect(renderPartitionTable(64)).toBe(
    [
      'label: gpt',
      'first-lba: 34',
      '14: start=2048, size=6144, type=21686148-6449-6E6F-744E-656564454649',
      '1: start=8192, size=120832, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709',
      '',
    ].join('\n'),
  )
})

test('a disk without room for a root partition is refused', () => {
  expect(() => renderPartitionTable(5)).toThrow('5 MiB')
})

test('the boot sector loads the core from its sector, without the drive check', () => {
  const { bootCode } = patchGrub(Buffer.alloc(512, 0xaa), Buffer.alloc(1024), 2048)
  expect(bootCode).toHaveLength(440)
  expect(bootCode.readBigUInt64LE(0x5c)).toBe(2048n)
  expect([...bootCode.subarray(0x66, 0x68)]).toEqual([0x90, 0x90])
  const touched = [...bootCode.keys()].filter((offset) => bootCode[offset] !== 0xaa)
  expect(touched).toEqual([0x5c, 0x5d, 0x5e, 0x5f, 0x60, 0x61, 0x62, 0x63, 0x66, 0x67])
})

test('the first sector of the core loads the rest from the sector after it', () => {
  const { core } = patchGrub(Buffer.alloc(512), Buffer.alloc(1024, 0xbb), 2048)
  expect(core).toHaveLength(1024)
  expect(core.readBigUInt64LE(0x1f4)).toBe(2049n)
  expect([...core.keys()].filter((offset) => core[offset] !== 0xbb)).toHaveLength(8)
})

test('a boot sector of another size is refused', () => {
  expect(() => patchGrub(Buffer.alloc(440), Buffer.alloc(1024), 2048)).toThrow('440 bytes')
})

test('an initrd is a newc archive with every part at a multiple of four bytes', () => {
  const archive = renderCpio([
    { kind: 'directory', path: 'bin' },
    { kind: 'file', path: 'bin/tool', mode: 0o755, content: Buffer.from('hello') },
    { kind: 'link', path: 'bin/sh', target: 'tool' },
  ])
  const entries = readCpio(archive)
  expect(entries).toEqual([
    { path: 'bin', mode: 0o040755, content: '' },
    { path: 'bin/tool', mode: 0o100755, content: 'hello' },
    { path: 'bin/sh', mode: 0o120777, content: 'tool' },
    { path: 'TRAILER!!!', mode: 0, content: '' },
  ])
})

/** Read an archive back by the format's own description, independent of how it was written. */
function readCpio(archive: Buffer): { path: string; mode: number; content: string }[] {
  const entries: { path: string; mode: number; content: string }[] = []
  for (let offset = 0; offset < archive.length; ) {
    expect(archive.toString('latin1', offset, offset + 6)).toBe('070701')
    const field = (index: number) =>
      Number.parseInt(archive.toString('latin1', offset + 6 + index * 8, offset + 14 + index * 8), 16)
    const [mode, size, nameLength] = [field(1), field(6), field(11)]
    const nameStart = offset + 110
    const contentStart = Math.ceil((nameStart + nameLength) / 4) * 4
    entries.push({
      path: archive.toString('utf8', nameStart, nameStart + nameLength - 1),
      mode,
      content: archive.toString('utf8', contentStart, contentStart + size),
    })
    offset = Math.ceil((contentStart + size) / 4) * 4
  }
  return entries
}
