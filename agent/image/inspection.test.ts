import { chmod, mkdtemp, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { CommandError, runCommand } from '../sys/run-command.ts'
import { hasQemuImg, makeQcow2, makeRaw } from '../testing/qemu-img.ts'
import { rejection } from '../testing/rejection.ts'
import { ForeignImageError, identifyImage } from './header.ts'
import { convertToQcow2, inspectImage, inspectionUid } from './inspection.ts'

const withQemuImg = await hasQemuImg()

let directory: string
let outside: string

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'berth-images-'))
  outside = await mkdtemp(join(tmpdir(), 'berth-outside-'))
})

afterEach(async () => {
  await rm(directory, { recursive: true, force: true })
  await rm(outside, { recursive: true, force: true })
})

const refusal = (promise: Promise<unknown>) => rejection(promise, ForeignImageError)

async function patch(path: string, at: number, bytes: Buffer): Promise<void> {
  const content = await readFile(path)
  bytes.copy(content, at)
  await writeFile(path, content)
}

function uint64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(value)
  return bytes
}

describe.skipIf(!withQemuImg)('an inspection', () => {
  const file = () => join(directory, 'x.partial')

  test('tells qcow2 with its virtual size', async () => {
    await makeQcow2(file())
    expect(await inspectImage(file())).toEqual({ format: 'qcow2', virtualSizeBytes: 4 * 1024 ** 2, firmware: 'bios' })
  })

  test('takes the older qcow2, compression and extended L2 entries', async () => {
    for (const option of ['compat=0.10', 'compression_type=zstd', 'extended_l2=on,cluster_size=128k']) {
      await rm(file(), { force: true })
      await makeQcow2(file(), '-o', option)
      expect((await inspectImage(file())).format).toBe('qcow2')
    }
  })

  test('tells a raw disk by its boot sector', async () => {
    await makeRaw(file())
    expect(await inspectImage(file())).toEqual({ format: 'raw', virtualSizeBytes: 4 * 1024 ** 2, firmware: 'bios' })
  })

  test('of a raw disk never looks for another format inside, even where QEMU would', async () => {
    await makeRaw(file(), 1)
    await patch(file(), 600, Buffer.from('QFI\xfb', 'latin1'))
    expect((await inspectImage(file())).format).toBe('raw')
  })

  test.each([
    ['a file of zeros', Buffer.alloc(100_000), 'not_an_image'],
    ['an empty file', Buffer.alloc(0), 'not_an_image'],
    ['a web page', Buffer.from('\n<!DOCTYPE html><title>404</title>'.padEnd(600)), 'not_an_image'],
    ['gzip', Buffer.from('1f8b0800', 'hex'), 'unsupported_format'],
    ['xz', Buffer.from('fd377a585a00', 'hex'), 'unsupported_format'],
    ['qcow 1', Buffer.from('514649fb00000001', 'hex'), 'unsupported_format'],
    ['a qcow2 of a few bytes', Buffer.from('514649fb00000003', 'hex'), 'damaged'],
  ])('refuses %s', async (_, content, code) => {
    await writeFile(file(), content)
    expect((await refusal(inspectImage(file()))).code).toBe(code)
  })

  test.each(['vmdk', 'vdi', 'vpc', 'vhdx', 'qed', 'parallels'])(
    'refuses %s and says how to convert',
    async (format) => {
      await runCommand(['qemu-img', 'create', '-q', '-f', format, file(), '4M'])
      const error = await refusal(inspectImage(file()))
      expect(error.code).toBe('unsupported_format')
      expect(error.message).toContain('qemu-img convert -O qcow2')
    },
  )

  test('refuses a fixed VHD, which looks like a raw disk', async () => {
    await runCommand(['qemu-img', 'create', '-q', '-f', 'vpc', '-o', 'subformat=fixed', file(), '4M'])
    await patch(file(), 510, Buffer.from('55aa', 'hex'))
    expect((await refusal(inspectImage(file()))).code).toBe('unsupported_format')
  })

  test('refuses a qcow2 with a backing file', async () => {
    await makeRaw(join(outside, 'base'))
    const backing = ['-b', join(outside, 'base'), '-F', 'raw']
    await runCommand(['qemu-img', 'create', '-q', '-f', 'qcow2', ...backing, file()])
    const error = await refusal(inspectImage(file()))
    expect(error.code).toBe('has_backing_file')
    expect(error.message).toContain('flatten')
  })

  test('refuses a qcow2 with a data file', async () => {
    await runCommand(['qemu-img', 'create', '-q', '-f', 'qcow2', '-o', `data_file=${outside}/data`, file(), '4M'])
    expect((await refusal(inspectImage(file()))).code).toBe('has_data_file')
  })

  const headerFaults: [string, number, Buffer, string][] = [
    ['unknown features', 72, uint64(1n << 40n), 'unknown_features'],
    ['a virtual size beyond 64 TiB', 24, uint64(65n << 40n), 'too_large'],
    ['a virtual size beyond 2^63', 24, uint64(1n << 63n), 'too_large'],
    ['no virtual size', 24, uint64(0n), 'damaged'],
    ['impossible clusters', 20, Buffer.from('0000003f', 'hex'), 'damaged'],
    ['encryption', 32, Buffer.from('00000002', 'hex'), 'encrypted'],
    ['the corrupt mark', 72, uint64(2n), 'damaged'],
    ['tables beyond its end', 40, uint64(1n << 40n), 'damaged'],
    ['tables that overlap', 40, uint64(0n), 'damaged'],
  ]
  test.each(headerFaults)('refuses a qcow2 with %s', async (_, at, bytes, code) => {
    await makeQcow2(file())
    await patch(file(), at, bytes)
    expect((await refusal(inspectImage(file()))).code).toBe(code)
  })

  test('refuses a qcow2 that was cut off in its data', async () => {
    await makeQcow2(file())
    await truncate(file(), (await stat(file())).size - 500_000)
    expect((await refusal(inspectImage(file()))).code).toBe('damaged')
  })

  test.skipIf(process.getuid?.() !== 0)('lends the file to the unprivileged user only while it lasts', async () => {
    await makeQcow2(file())
    await inspectImage(file())
    await patch(file(), 40, uint64(0n))
    await refusal(inspectImage(file()))
    const { uid, gid, mode } = await stat(file())
    expect({ uid, gid, mode: mode & 0o777 }).toEqual({ uid: 0, gid: 0, mode: 0o600 })
  })

  test.skipIf(process.getuid?.() !== 0)('is made by a user who can do nothing but read the one file', async () => {
    await makeQcow2(file())
    // A qemu-img, first in PATH, that tells what it may do.
    const tries = [
      'id -u; id -g; id -G',
      'ulimit -v; ulimit -t',
      'head -c 3 /proc/self/fd/3',
      '(echo x >/proc/self/fd/3) 2>/dev/null && echo wrote',
      `head -c 3 ${file()} 2>/dev/null || echo closed`,
      'chmod 666 /proc/self/fd/3 2>/dev/null || echo fixed',
      'grep -c "CapBnd:.0000000000000000" /proc/self/status',
    ]
    await writeFile(join(outside, 'qemu-img'), `#!/bin/sh\necho $(${tries.join('; ')}) >&2; exit 1\n`, { mode: 0o755 })
    await chmod(outside, 0o755)
    const path = process.env.PATH
    process.env.PATH = `${outside}:${path}`
    try {
      const error = await refusal(inspectImage(file()))
      const user = `${inspectionUid} ${inspectionUid} ${inspectionUid}`
      expect(error.message).toBe(`the image cannot be read: ${user} 2097152 30 QFIclosed fixed 1`)
    } finally {
      process.env.PATH = path
    }
  })

  test('on a host without qemu-img blames the host, not the image', async () => {
    await makeQcow2(file())
    for (const tool of ['prlimit', 'setpriv']) {
      await symlink((await runCommand(['which', tool])).stdout.trim(), join(outside, tool))
    }
    await chmod(outside, 0o755)
    const path = process.env.PATH
    process.env.PATH = outside
    try {
      await expect(inspectImage(file())).rejects.toBeInstanceOf(CommandError)
    } finally {
      process.env.PATH = path
    }
  })

  test('never throws anything but a refusal, whatever the bytes', () => {
    const header = Buffer.alloc(4096)
    Buffer.from('514649fb00000003', 'hex').copy(header)
    const start = fc.constantFrom(Buffer.alloc(0), header.subarray(0, 8), header)
    const property = fc.property(start, fc.uint8Array({ maxLength: 600 }), fc.nat(1 << 20), (prefix, bytes, size) => {
      const head = Buffer.concat([prefix.subarray(0, 8), bytes])
      try {
        identifyImage({ head, tail: head.subarray(-512), sizeBytes: head.length + size })
      } catch (error) {
        expect(error).toBeInstanceOf(ForeignImageError)
      }
    })
    fc.assert(property, { numRuns: 500 })
  })
})

describe.skipIf(!withQemuImg)('a conversion', () => {
  test('gives a qcow2 with the same content', async () => {
    const [raw, converted] = [join(directory, 'raw.partial'), join(directory, 'converted.partial')]
    await makeRaw(raw)
    expect(await convertToQcow2(raw, converted)).toMatchObject({ format: 'qcow2', virtualSizeBytes: 4 * 1024 ** 2 })
    await runCommand(['qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', raw, converted])
    expect((await stat(converted)).mode & 0o777).toBe(0o600)
  })
})
