import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { ChecksumParts } from '@berth/contract/images/checksum.ts'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { runCommand } from '../sys/run-command.ts'
import { type Fault, FaultyFileServer } from '../testing/faulty-file-server.ts'
import { rejection } from '../testing/rejection.ts'
import { type DownloadOptions, downloadFile } from './download.ts'
import { ImageDownloadError } from './download-error.ts'
import { discardPartial, notePath } from './partial.ts'
import { getSource } from './request.ts'

const content = randomBytes(300_000)
const digest = (bytes: Buffer, algorithm: 'sha256' | 'sha512' = 'sha256'): ChecksumParts => ({
  algorithm,
  hex: createHash(algorithm).update(bytes).digest('hex'),
})

let server: FaultyFileServer
let directory: string
let partial: string
let delays: number[]

beforeEach(async () => {
  server = await FaultyFileServer.start()
  server.put('/disk.qcow2', content)
  directory = await mkdtemp(join(tmpdir(), 'berth-download-'))
  partial = join(directory, 'x.partial')
  delays = []
})

afterEach(async () => {
  await server.close()
  await rm(directory, { recursive: true, force: true })
})

const limits = {
  stallMs: 5000,
  delay: async (ms: number, signal: AbortSignal) => {
    signal.throwIfAborted()
    delays.push(ms)
  },
}

function download(options: Partial<DownloadOptions> = {}, url = server.url('/disk.qcow2')): Promise<void> {
  return downloadFile(url, partial, {
    expected: digest(content),
    signal: new AbortController().signal,
    allowPrivateSources: ['127.0.0.1'],
    ...options,
    limits: { ...limits, ...options.limits },
  })
}

const failure = (promise: Promise<unknown>) => rejection(promise, ImageDownloadError)
const ranges = () => server.requests.map((request) => request.range)
const here = () => readFile(partial)

describe('a download', () => {
  test('brings the file and reports its progress up to the end', async () => {
    const seen: { receivedBytes: number; totalBytes: number | null }[] = []
    await download({ onProgress: (progress) => seen.push(progress) })
    expect((await here()).equals(content)).toBe(true)
    expect(seen[0]).toEqual({ receivedBytes: 0, totalBytes: content.length })
    expect(seen.at(-1)).toEqual({ receivedBytes: content.length, totalBytes: content.length })
    expect((await stat(partial)).mode & 0o777).toBe(0o600)
  })

  test('takes a body without an announced length', async () => {
    server.misbehave({ kind: 'chunked' })
    await download()
    expect((await here()).equals(content)).toBe(true)
  })

  test('is checked against SHA-512 where that is what is known', async () => {
    await download({ expected: digest(content, 'sha512') })
    expect((await here()).equals(content)).toBe(true)
  })

  test('continues after a cut connection where it stopped', async () => {
    server.misbehave({ kind: 'cut', afterBytes: 100_000 }, { kind: 'serve' })
    await download()
    expect((await here()).equals(content)).toBe(true)
    expect(ranges()).toEqual([null, 'bytes=100000-'])
    expect(delays).toEqual([5000])
  })

  test('is tried three times per outage, after 5 and 15 seconds, then names URL and cause', async () => {
    server.misbehave({ kind: 'cut', afterBytes: 10 })
    const error = await failure(download())
    expect(error).toMatchObject({ code: 'unreachable', retryable: true })
    expect(error.message).toContain(`GET ${server.url('/disk.qcow2')}: `)
    expect(error.message).toContain('given up after 3 attempts')
    expect(delays).toEqual([5000, 15_000])
    expect((await here()).length).toBe(30)
  })

  test('starts to count attempts again after progress, up to a bound', async () => {
    server.misbehave({ kind: 'cut', afterBytes: 1000 })
    const error = await failure(download({ limits: { progressBytes: 1000, totalAttempts: 7 } }))
    expect(error.message).toContain('given up after 7 attempts')
    expect(delays).toEqual([5000, 5000, 5000, 5000, 5000, 5000])
  })

  test('that stalls in the middle is cut off, then continued', async () => {
    server.misbehave({ kind: 'stall', afterBytes: 50_000 }, { kind: 'serve' })
    await download({ limits: { stallMs: 200 } })
    expect(ranges()).toEqual([null, 'bytes=50000-'])
  })

  test('that is never answered is a stall', async () => {
    server.misbehave({ kind: 'silence' })
    const error = await failure(download({ limits: { stallMs: 50, attempts: 1 } }))
    expect(error).toMatchObject({ code: 'stalled', retryable: true })
    expect(error.message).toContain('no byte for 0.05 s')
  })

  test('ends when its whole time is over, however much each attempt brings', async () => {
    server.misbehave({ kind: 'stall', afterBytes: 1000 })
    const error = await failure(download({ limits: { totalMs: 100 } }))
    expect(error).toMatchObject({ code: 'too_slow', retryable: true })
  })

  test('starts over when the server ignores ranges', async () => {
    server.misbehave({ kind: 'cut', afterBytes: 100_000 }, { kind: 'ignore-range' })
    await download()
    expect((await here()).equals(content)).toBe(true)
    expect(ranges()).toEqual([null, 'bytes=100000-'])
  })

  test.each([-7, 7])('starts over when a 206 begins %i bytes off', async (by) => {
    server.misbehave({ kind: 'cut', afterBytes: 100_000 }, { kind: 'wrong-offset', by }, { kind: 'serve' })
    await download()
    expect((await here()).equals(content)).toBe(true)
    expect(ranges()).toEqual([null, 'bytes=100000-', null])
  })

  test('starts over when the file changed on the server meanwhile', async () => {
    // Of the same length: only the validator tells.
    const newer = randomBytes(content.length)
    server.misbehave({ kind: 'cut', afterBytes: 100_000 }, { kind: 'new-version', content: newer })
    await download({ expected: digest(newer) })
    expect((await here()).equals(newer)).toBe(true)
    expect(ranges()).toEqual([null, 'bytes=100000-'])
  })

  test('is not continued when the server names no version', async () => {
    server.misbehave({ kind: 'no-validators' })
    await download({ expected: null })
    await writeFile(partial, content.subarray(0, 1000))
    await download({ expected: null })
    expect(ranges()).toEqual([null, null])
  })

  test('of another URL does not continue what is there', async () => {
    const other = randomBytes(1000)
    server.put('/other.qcow2', other)
    server.misbehave({ kind: 'cut', afterBytes: 500 }, { kind: 'serve' })
    await failure(download({ limits: { attempts: 1 } }))
    await download({ expected: digest(other) }, server.url('/other.qcow2'))
    expect((await here()).equals(other)).toBe(true)
    expect(ranges()).toEqual([null, null])
  })

  test('that was whole when its process died needs no more bytes', async () => {
    await download()
    await download()
    expect(server.requests).toHaveLength(1)
    await download({ expected: null })
    expect(ranges()).toEqual([null, `bytes=${content.length}-`])
    expect((await here()).equals(content)).toBe(true)
  })

  test('longer than announced fails and leaves nothing', async () => {
    server.misbehave({ kind: 'announce-less', bytes: 100 })
    const error = await failure(download({ expected: null }))
    expect(error).toMatchObject({ code: 'bad_response', retryable: false })
    expect(await readdir(directory)).toEqual([])
  })

  test('of other content fails at once, naming what was promised and not what is there, and leaves nothing', async () => {
    server.misbehave({ kind: 'wrong-bytes' })
    const error = await failure(download())
    expect(error).toMatchObject({ code: 'bad_checksum', retryable: false })
    expect(error.message).toContain(digest(content).hex)
    // an address that only this host reaches must not be read through the error
    expect(error.message).not.toContain(digest(Buffer.alloc(content.length, 0x58)).hex)
    expect(error.message).not.toContain(String(content.length))
    expect(error.cause).toMatchObject({
      message: `the ${content.length} bytes have SHA-256 ${digest(Buffer.alloc(content.length, 0x58)).hex}`,
    })
    expect(server.requests).toHaveLength(1)
    expect(await readdir(directory)).toEqual([])
  })

  test('announced larger than the limit is refused before the first byte', async () => {
    const error = await failure(download({ maxBytes: content.length - 1 }))
    expect(error).toMatchObject({ code: 'too_large', retryable: false })
    expect(await readdir(directory)).toEqual([])
  })

  test('without an end stops at the limit and leaves nothing', async () => {
    server.misbehave({ kind: 'endless' })
    const error = await failure(download({ maxBytes: 1_000_000 }))
    expect(error.code).toBe('too_large')
    expect(await readdir(directory)).toEqual([])
  })

  test.each([400, 401, 403, 404, 410])('answered %i fails at once', async (status) => {
    server.misbehave({ kind: 'status', status })
    const error = await failure(download())
    expect(error).toMatchObject({ code: 'http_status', retryable: false })
    expect(error.message).toBe(`GET ${server.url('/disk.qcow2')}: HTTP status ${status}`)
    expect(delays).toEqual([])
  })

  test.each([408, 429, 500, 502, 503])('answered %i is tried again', async (status) => {
    server.misbehave({ kind: 'status', status }, { kind: 'serve' })
    await download()
    expect(delays).toEqual([5000])
  })

  test('from a closed port says that the connection was refused', async () => {
    const url = server.url('/disk.qcow2')
    await server.close()
    const error = await failure(download({}, url))
    expect(error).toMatchObject({ code: 'unreachable', retryable: true })
    expect(error.message).toContain('ECONNREFUSED')
    server = await FaultyFileServer.start()
  })

  test('from a name that does not exist says which', async () => {
    const error = await failure(download({ limits: { attempts: 1 } }, 'http://no-such-host.invalid/disk.qcow2'))
    expect(error.code).toBe('unreachable')
    expect(error.message).toMatch(
      /^GET http:\/\/no-such-host\.invalid\/disk\.qcow2: getaddrinfo \w+ no-such-host\.invalid/,
    )
  })

  test('ends with the reason of its signal and keeps what came', async () => {
    const controller = new AbortController()
    server.misbehave({ kind: 'stall', afterBytes: 1000 })
    const reason = new Error('nobody waits')
    const running = download({
      signal: controller.signal,
      onProgress: ({ receivedBytes }) => {
        if (receivedBytes > 0) controller.abort(reason)
      },
    })
    await expect(running).rejects.toBe(reason)
    expect((await here()).length).toBe(1000)
    expect(await readdir(directory)).toEqual(['x.partial', 'x.partial.meta'])
  })

  test('comes out right through any sequence of cuts, stalls and ignored ranges', async () => {
    const fault = fc.oneof(
      fc.record({ kind: fc.constant('cut' as const), afterBytes: fc.integer({ min: 0, max: 5000 }) }),
      fc.record({ kind: fc.constant('wrong-offset' as const), by: fc.integer({ min: -9, max: 9 }) }),
      fc.constant<Fault>({ kind: 'ignore-range' }),
      fc.constant<Fault>({ kind: 'status', status: 503 }),
    )
    const small = content.subarray(0, 4000)
    server.put('/disk.qcow2', small)
    const property = fc.asyncProperty(fc.array(fault, { maxLength: 6 }), async (faults) => {
      await discardPartial(partial)
      server.misbehave(...faults, { kind: 'serve' })
      await download({ expected: digest(small), limits: { attempts: 10 } })
      expect((await here()).equals(small)).toBe(true)
    })
    await fc.assert(property, { numRuns: 40 })
  })
})

test('a reader that is slower than the server makes the server wait, not the memory grow', async () => {
  server.misbehave({ kind: 'endless' })
  const response = await getSource(server.url('/disk.qcow2'), {
    allowPrivateSources: ['127.0.0.1'],
    stallMs: 5000,
    maxRedirects: 0,
    keepTls: false,
    signal: new AbortController().signal,
  })
  const flooded = server.sent(64 * 1024 ** 2).then(() => 'flooded')
  const held = delay(300).then(() => 'held')
  expect(await Promise.race([flooded, held])).toBe('held')
  response.close()
})

describe('redirects', () => {
  test('are followed', async () => {
    server.misbehave({ kind: 'redirect', location: '/disk.qcow2?mirror=1' }, { kind: 'serve' })
    server.put('/disk.qcow2?mirror=1', content)
    await download()
    expect((await here()).equals(content)).toBe(true)
  })

  test('are followed five times and no more', async () => {
    server.misbehave({ kind: 'redirect', location: '/disk.qcow2' })
    const error = await failure(download())
    expect(error).toMatchObject({ code: 'too_many_redirects', retryable: false })
    expect(server.requests).toHaveLength(6)
  })

  test.each([
    ['http://169.254.169.254/latest/meta-data/', 'forbidden_address'],
    ['http://[fe80::1]/disk', 'forbidden_address'],
    ['http://127.0.0.2/disk', 'forbidden_address'],
    ['http://[::ffff:169.254.169.254]/disk', 'forbidden_address'],
    ['file:///etc/shadow', 'bad_url'],
    ['ftp://example.com/disk', 'bad_url'],
    ['http://user:secret@example.com/disk', 'bad_url'],
    ['http://[nonsense', 'bad_url'],
  ])('to %s are refused', async (location, code) => {
    server.misbehave({ kind: 'redirect', location })
    const error = await failure(download())
    expect(error).toMatchObject({ code, retryable: false })
    expect(error.message).not.toContain('secret')
    expect(server.requests).toHaveLength(1)
  })
})

describe('the address of a source', () => {
  test('a name is judged by the addresses it stands for', async () => {
    const error = await failure(download({ allowPrivateSources: false }, `http://localhost:${server.port}/disk.qcow2`))
    expect(error).toMatchObject({ code: 'forbidden_address', retryable: false })
    expect(server.requests).toEqual([])
  })

  test.each(['127.0.0.1', '2130706433', '0x7f.1', '017700000001', '[::1]', '[::ffff:7f00:1]', '0.0.0.0', '[::]'])(
    'written as %s is refused by default',
    async (host) => {
      const error = await failure(download({ allowPrivateSources: false }, `http://${host}:${server.port}/disk.qcow2`))
      expect(error.code).toBe('forbidden_address')
      expect(server.requests).toEqual([])
    },
  )

  test('of this machine is fine when the setting says so', async () => {
    await download({ allowPrivateSources: true })
    expect(server.requests).toHaveLength(1)
  })
})

// ENOSPC comes from a real full file system; mounting one takes root.
const mounted = process.getuid?.() === 0
if (!mounted) console.warn('SKIPPED: the tests of a full disk need root to mount a tmpfs')

describe.skipIf(!mounted)('a full disk', () => {
  let small: string
  beforeEach(async () => {
    small = await mkdtemp(join(tmpdir(), 'berth-full-'))
    await runCommand(['mount', '-t', 'tmpfs', '-o', 'size=128k', 'berth-test', small])
    partial = join(small, 'x.partial')
  })
  afterEach(async () => {
    await runCommand(['umount', '-l', small])
    await rm(small, { recursive: true })
  })

  test('is noticed before the first byte when the length is announced', async () => {
    const error = await failure(download())
    expect(error).toMatchObject({ code: 'disk_full', retryable: true })
    expect(error.message).toContain(`${content.length} bytes are missing`)
    expect(delays).toEqual([])
  })

  test('that fills up on the way fails at once and keeps what came for later', async () => {
    server.misbehave({ kind: 'chunked' })
    const error = await failure(download())
    expect(error).toMatchObject({ code: 'disk_full', retryable: true })
    const keptBytes = (await stat(partial)).size
    expect(keptBytes).toBeGreaterThan(50_000)
    await runCommand(['mount', '-o', 'remount,size=2m', small])
    server.misbehave({ kind: 'serve' })
    await download()
    expect(ranges().at(-1)).toBe(`bytes=${keptBytes}-`)
    expect((await here()).equals(content)).toBe(true)
  })
})

test('a note that is no JSON is as good as none', async () => {
  await writeFile(partial, content.subarray(0, 1000))
  await writeFile(notePath(partial), '{"url":')
  await download()
  expect(ranges()).toEqual([null])
})
