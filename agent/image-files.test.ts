import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  chmod,
  link,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { HostImage } from '@berth/contract/images.ts'
import fc from 'fast-check'
import pino from 'pino'
import { Value } from 'typebox/value'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type ImageAbout, importImage, publishImage, scanImages } from './image-files.ts'
import { ForeignImageError, identifyImage } from './image-header.ts'
import { convertToQcow2, inspectImage, inspectionUid } from './image-inspection.ts'
import { CommandError, runCommand } from './run-command.ts'
import { hasQemuImg, makeQcow2, makeRaw } from './testing/qemu-img.ts'

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

const about: ImageAbout = {
  id: 'web-1.0',
  title: 'Web',
  min_disk_gb: 1,
  architecture: 'x86_64',
  default_user: 'debian',
  network: 'static',
  origin: 'built',
  source_url: '',
}

const sha256 = async (path: string) =>
  createHash('sha256')
    .update(await readFile(path))
    .digest('hex')

function logTo(lines: string[]) {
  return pino({ base: null, timestamp: false }, { write: (line: string) => lines.push(line) })
}
const silent = pino({ level: 'silent' })

async function refusal(promise: Promise<unknown>): Promise<ForeignImageError> {
  const error: unknown = await promise.then(
    () => new Error('it was accepted'),
    (reason: unknown) => reason,
  )
  if (error instanceof ForeignImageError) return error
  throw error
}

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

describe.skipIf(!withQemuImg)('publishing', () => {
  const partial = () => join(directory, 'web-1.0.qcow2.partial')

  test('makes a finished file an image with its own description', async () => {
    await makeQcow2(partial())
    const image = await publishImage(directory, partial(), about, { now: () => Date.UTC(2026, 10, 1, 2, 3, 4, 567) })
    const disk = join(directory, 'web-1.0.qcow2')
    expect(image).toEqual({
      ...about,
      sha256: await sha256(disk),
      size_bytes: (await stat(disk)).size,
      virtual_size_bytes: 4 * 1024 ** 2,
      created_at: '2026-11-01T02:03:04Z',
    })
    expect(Value.Parse(HostImage, JSON.parse(await readFile(join(directory, 'web-1.0.json'), 'utf8')))).toEqual(image)
    expect((await stat(disk)).mode & 0o777).toBe(0o600)
    expect((await stat(join(directory, 'web-1.0.json'))).mode & 0o777).toBe(0o600)
    expect(await readdir(directory)).toEqual(['.publish.lock', 'web-1.0.json', 'web-1.0.qcow2'])
    expect(await scanImages(directory, silent)).toEqual([image])
  })

  test('replaces an image while an instance keeps the old disk', async () => {
    await makeQcow2(partial())
    const old = await publishImage(directory, partial(), about)
    await link(join(directory, 'web-1.0.qcow2'), join(outside, 'backing.qcow2'))
    await makeQcow2(partial(), '-o', 'cluster_size=4k')
    const replaced = await publishImage(directory, partial(), about)
    expect(replaced.sha256).not.toBe(old.sha256)
    expect(await sha256(join(outside, 'backing.qcow2'))).toBe(old.sha256)
    expect(await scanImages(directory, silent)).toEqual([replaced])
  })

  test('by several at once leaves one of them whole', async () => {
    const partials = ['a', 'b', 'c', 'd'].map((name) => join(directory, `${name}.partial`))
    for (const path of partials) await makeQcow2(path, '-o', `cluster_size=${4 << partials.indexOf(path)}k`)
    await Promise.all(partials.map((path) => publishImage(directory, path, about)))
    const [image] = await scanImages(directory, silent)
    expect(await sha256(join(directory, 'web-1.0.qcow2'))).toBe(image?.sha256)
  })

  test('of an overlay is refused and leaves the old image', async () => {
    await makeQcow2(partial())
    const old = await publishImage(directory, partial(), about)
    await runCommand([
      'qemu-img',
      'create',
      '-q',
      '-f',
      'qcow2',
      '-b',
      '/etc/shadow',
      '-F',
      'raw',
      '-u',
      partial(),
      '4M',
    ])
    expect((await refusal(publishImage(directory, partial(), about))).code).toBe('has_backing_file')
    expect(await scanImages(directory, silent)).toEqual([old])
  })

  test('waits for its turn, so that no description meets the disk of another', async () => {
    const [first, second] = [join(directory, 'first.partial'), join(directory, 'second.partial')]
    for (const path of [first, second]) await makeQcow2(path)
    const [replaced, waiting, goOn] = [
      Promise.withResolvers<void>(),
      Promise.withResolvers<void>(),
      Promise.withResolvers<void>(),
    ]
    const publishingFirst = publishImage(directory, first, about, {
      reached: async (point) => {
        if (point !== 'replaced') return
        replaced.resolve()
        await goOn.promise
      },
    })
    await replaced.promise
    const publishingSecond = publishImage(directory, second, about, {
      reached: (point) => {
        if (point === 'waiting') waiting.resolve()
      },
    })
    await Promise.race([waiting.promise, publishingSecond])
    goOn.resolve()
    await publishingFirst
    const image = await publishingSecond
    expect(await scanImages(directory, silent)).toEqual([image])
    expect(await sha256(join(directory, 'web-1.0.qcow2'))).toBe(image.sha256)
  })

  test.each([
    ['undescribed', 'none'],
    ['replaced', 'none'],
    ['described', 'new'],
  ])('by a process killed when the image is %s leaves %s, and keeps nobody out', async (point, left) => {
    const disk = join(directory, 'killed.qcow2')
    // Of one size, so that only the order of the steps protects the description.
    await makeQcow2(partial())
    await publishImage(directory, partial(), { ...about, id: 'killed' })
    await makeQcow2(partial())
    const sha = await sha256(partial())
    const fixture = new URL('testing/publish-until-killed.ts', import.meta.url).pathname
    const child = spawn(process.execPath, [fixture, directory, partial(), point], { stdio: 'inherit' })
    const [, signal] = await once(child, 'exit')
    expect(signal).toBe('SIGKILL')
    const images = await scanImages(directory, silent)
    expect(images.map((image) => image.sha256)).toEqual(left === 'new' ? [sha] : [])
    if (left === 'new') expect(await sha256(disk)).toBe(sha)
    await makeQcow2(partial())
    const next = await publishImage(directory, partial(), { ...about, id: 'killed' })
    expect(await scanImages(directory, silent)).toEqual([next])
  })
})

describe.skipIf(!withQemuImg)('a scan', () => {
  const broken: [string, (path: string) => Promise<void>, string][] = [
    ['without its disk', (base) => rm(`${base}.qcow2`), 'web-1.0.qcow2 is missing'],
    ['with a disk of another size', (base) => truncate(`${base}.qcow2`, 1000), 'has 1000 bytes'],
    ['that is cut off', (base) => truncate(`${base}.json`, 20), 'not JSON'],
    ['of another image', (base) => rename(`${base}.json`, base.replace('web', 'wrong').concat('.json')), 'web-1.0'],
    ['with a missing field', (base) => writeFile(`${base}.json`, '{"id":"web-1.0"}'), 'required'],
    ['that is huge', (base) => writeFile(`${base}.json`, ' '.repeat(70_000)), 'at most 64 KiB'],
  ]
  test.each(broken)('leaves out a description %s, and says so once', async (_, spoil, reason) => {
    await makeQcow2(join(directory, 'x.partial'))
    await publishImage(directory, join(directory, 'x.partial'), about)
    await makeQcow2(join(directory, 'y.partial'))
    const whole = await publishImage(directory, join(directory, 'y.partial'), { ...about, id: 'whole' })
    await spoil(join(directory, 'web-1.0'))
    const lines: string[] = []
    const warned = new Map<string, string>()
    expect(await scanImages(directory, logTo(lines), warned)).toEqual([whole])
    expect(await scanImages(directory, logTo(lines), warned)).toEqual([whole])
    expect(lines).toHaveLength(1)
    expect(lines[0]).toContain(reason)
  })

  test('of a directory that does not exist finds nothing', async () => {
    expect(await scanImages(join(directory, 'none'), silent)).toEqual([])
  })
})

describe.skipIf(!withQemuImg)('an inspection', () => {
  const file = () => join(directory, 'x.partial')

  test('tells qcow2 with its virtual size', async () => {
    await makeQcow2(file())
    expect(await inspectImage(file())).toEqual({ format: 'qcow2', virtualSizeBytes: 4 * 1024 ** 2 })
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
    expect(await inspectImage(file())).toEqual({ format: 'raw', virtualSizeBytes: 4 * 1024 ** 2 })
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
    fc.assert(property, { interruptAfterTimeLimit: 3000, numRuns: 2000 })
  })
})

describe.skipIf(!withQemuImg)('a conversion', () => {
  test('gives a qcow2 with the same content', async () => {
    const [raw, converted] = [join(directory, 'raw.partial'), join(directory, 'converted.partial')]
    await makeRaw(raw)
    expect(await convertToQcow2(raw, converted)).toEqual({ format: 'qcow2', virtualSizeBytes: 4 * 1024 ** 2 })
    await runCommand(['qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', raw, converted])
    expect((await stat(converted)).mode & 0o777).toBe(0o600)
  })
})

describe.skipIf(!withQemuImg)('an import', () => {
  const file = () => join(outside, 'disk')

  test('publishes a copy and leaves the file alone', async () => {
    await makeQcow2(file())
    const before = await stat(file())
    const image = await importImage(file(), { id: 'mine' }, directory)
    expect(image).toMatchObject({
      id: 'mine',
      title: 'mine',
      min_disk_gb: 1,
      default_user: 'root',
      network: 'static',
      origin: 'imported',
      source_url: '',
      sha256: await sha256(file()),
    })
    const after = await stat(file())
    expect([after.uid, after.gid, after.mode, after.ino]).toEqual([before.uid, before.gid, before.mode, before.ino])
    expect(await readdir(directory)).toEqual(['.publish.lock', 'mine.json', 'mine.qcow2'])
  })

  test('converts a raw disk', async () => {
    await makeRaw(file())
    const options = { title: 'Mine', default_user: 'ubuntu', min_disk_gb: 3, network: 'dhcp' as const }
    const image = await importImage(file(), { id: 'mine', ...options }, directory)
    expect(image).toMatchObject({ ...options, virtual_size_bytes: 4 * 1024 ** 2 })
    expect(await inspectImage(join(directory, 'mine.qcow2'))).toMatchObject({ format: 'qcow2' })
  })

  test('of a sparse disk copies only what it holds', async () => {
    await makeRaw(file(), 2048)
    const image = await importImage(file(), { id: 'mine' }, directory)
    expect(image.min_disk_gb).toBe(2)
    expect(image.size_bytes).toBeLessThan(10 * 1024 ** 2)
  })

  test.each([
    ['is no image', () => writeFile(file(), 'hello'), { id: 'mine' }, 'not_an_image'],
    ['is a folder', () => runCommand(['mkdir', file()]), { id: 'mine' }, 'not_an_image'],
    ['does not fit on the disk it promises', () => makeRaw(file(), 1025), { id: 'mine', min_disk_gb: 1 }, 'too_large'],
  ])('of a file that %s leaves nothing behind', async (_, make, options, code) => {
    await make()
    expect((await refusal(importImage(file(), options, directory))).code).toBe(code)
    expect(await readdir(directory)).toEqual([])
  })

  test('that is called off leaves nothing behind', async () => {
    await makeRaw(file())
    const reason = new Error('Ctrl-C')
    const importing = importImage(file(), { id: 'mine' }, directory, { signal: AbortSignal.abort(reason) })
    await expect(importing).rejects.toThrow()
    expect(await readdir(directory)).toEqual([])
  })

  test('of a name that is no id is refused', async () => {
    await makeQcow2(file())
    await expect(importImage(file(), { id: '../mine' }, directory)).rejects.toThrow('not an image id')
  })
})
