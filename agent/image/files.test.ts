import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { link, mkdtemp, readdir, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { HostImage } from '@berth/contract/images/images.ts'
import pino from 'pino'
import { Value } from 'typebox/value'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { runCommand } from '../sys/run-command.ts'
import { hasQemuImg, makeQcow2, makeRaw } from '../testing/qemu-img.ts'
import { rejection } from '../testing/rejection.ts'
import { type ImageAbout, importImage, publishImage, scanImages } from './files.ts'
import { ForeignImageError } from './header.ts'
import { inspectImage } from './inspection.ts'

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

const refusal = (promise: Promise<unknown>) => rejection(promise, ForeignImageError)

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
    const fixture = new URL('../testing/publish-until-killed.ts', import.meta.url).pathname
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
