import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type Fault, FaultyFileServer } from '../testing/faulty-file-server.ts'
import { rejection } from '../testing/rejection.ts'
import { fetchChecksum } from './checksum.ts'
import { ImageDownloadError } from './download-error.ts'

let server: FaultyFileServer
let delays: number[]

beforeEach(async () => {
  server = await FaultyFileServer.start()
  delays = []
})

afterEach(() => server.close())

const limits = {
  stallMs: 5000,
  delay: async (ms: number, signal: AbortSignal) => {
    signal.throwIfAborted()
    delays.push(ms)
  },
}

const failure = (promise: Promise<unknown>) => rejection(promise, ImageDownloadError)

describe('a checksum file', () => {
  const a = 'a'.repeat(64)
  const options = () => ({
    signal: new AbortController().signal,
    allowPrivateSources: ['127.0.0.1'],
    limits,
  })

  test('is fetched and searched for the name', async () => {
    server.put('/SHA256SUMS', `${a} *disk.img\n`)
    const checksum = await fetchChecksum(server.url('/SHA256SUMS'), '/images/disk.img', options())
    expect(checksum).toBe(`sha256:${a}`)
  })

  test('is tried again when the server is busy', async () => {
    server.put('/SHA256SUMS', `${a} *disk.img\n`)
    server.misbehave({ kind: 'status', status: 503 }, { kind: 'serve' })
    await fetchChecksum(server.url('/SHA256SUMS'), '/images/disk.img', options())
    expect(delays).toEqual([5000])
  })

  test.each<[string, Fault, boolean]>([
    ['that is missing', { kind: 'status', status: 404 }, false],
    ['of a broken server', { kind: 'status', status: 500 }, true],
    ['without an end', { kind: 'endless' }, false],
    ['at a forbidden address', { kind: 'redirect', location: 'http://169.254.169.254/' }, false],
    ['without the name', { kind: 'serve' }, false],
  ])('%s is unavailable', async (_, fault, retryable) => {
    server.put('/SHA256SUMS', `${a}  other.img\n`)
    server.misbehave(fault)
    const error = await failure(fetchChecksum(server.url('/SHA256SUMS'), '/images/disk.img', options()))
    expect(error).toMatchObject({ code: 'checksum_unavailable', retryable })
    expect(error.message).toContain(server.url('/SHA256SUMS'))
  })
})
