import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { CatalogueImage } from '@berth/contract/images/images.ts'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { runCommand } from '../sys/run-command.ts'
import type { FaultyFileServer } from '../testing/faulty-file-server.ts'
import { entry, failure, forever, ImageStoreFixture, now, sha256, withQemuImg } from '../testing/image-store-fixture.ts'
import { makeQcow2, makeRaw } from '../testing/qemu-img.ts'
import { importImage } from './files.ts'
import type { ImageStore, ImageStoreOptions } from './store.ts'

let fixture: ImageStoreFixture
let server: FaultyFileServer
let directory: string
let outside: string
let disk: Buffer
let store: ImageStore

beforeEach(async () => {
  fixture = await ImageStoreFixture.open()
  ;({ server, directory, outside, disk, store } = fixture)
})

afterEach(async () => {
  await store.close()
  await fixture.close()
})

const newStore = (options: Partial<ImageStoreOptions> = {}) => fixture.newStore(options)
const remote = (more: Partial<CatalogueImage> = {}) => fixture.remote(more)

describe.skipIf(!withQemuImg)('an image with a source', () => {
  test('is downloaded, checked and published', async () => {
    const { image, path } = await store.ensure(remote(), forever())
    expect(path).toBe(join(directory, 'debian-12.qcow2'))
    expect((await readFile(path)).equals(disk)).toBe(true)
    expect(image).toEqual({
      ...entry(),
      datasource: 'disk',
      origin: 'downloaded',
      firmware: 'bios',
      source_url: server.url('/disk.qcow2'),
      sha256: sha256(disk),
      size_bytes: disk.length,
      virtual_size_bytes: 4 * 1024 ** 2,
      created_at: '2026-11-01T00:00:00Z',
    })
    expect(store.list()).toEqual([image])
    expect(store.status('debian-12')).toMatchObject({ state: 'available', receivedBytes: disk.length })
    expect(await readdir(directory)).toEqual(['.publish.lock', 'debian-12.json', 'debian-12.qcow2'])
  })

  test('is downloaded once for any number of waiters', async () => {
    const all = await Promise.all(Array.from({ length: 50 }, () => store.ensure(remote(), forever())))
    expect(new Set(all.map(({ path }) => path)).size).toBe(1)
    expect(server.requests).toHaveLength(1)
  })

  test('is not downloaded again, neither by this process nor by the next', async () => {
    await store.ensure(remote(), forever())
    await store.ensure(remote(), forever())
    const next = newStore()
    await next.ensure(remote(), forever())
    expect(next.list()).toEqual(store.list())
    expect(server.requests).toHaveLength(1)
  })

  test('is checked against the line of a checksum file', async () => {
    server.put('/SHA256SUMS', `${sha256(disk)} *disk.qcow2\n`)
    const { checksum: _, ...image } = remote({ checksum_url: server.url('/SHA256SUMS') })
    await store.ensure(image, forever())
    expect(server.requests.map(({ path }) => path)).toEqual(['/SHA256SUMS', '/disk.qcow2'])
  })

  test('is not downloaded when its checksum file cannot be had', async () => {
    const { checksum: _, ...image } = remote({ checksum_url: server.url('/SHA256SUMS') })
    expect((await failure(store.ensure(image, forever()))).code).toBe('checksum_unavailable')
    expect(server.requests.map(({ path }) => path)).toEqual(['/SHA256SUMS'])
  })

  test('of raw content is converted', async () => {
    await makeRaw(join(outside, 'raw'))
    const raw = await readFile(join(outside, 'raw'))
    server.put('/disk.raw', raw)
    const source = { source_url: server.url('/disk.raw'), checksum: `sha256:${sha256(raw)}` }
    const { image, path } = await store.ensure(remote(source), forever())
    expect((await readFile(path)).subarray(0, 3).toString()).toBe('QFI')
    expect(image.sha256).toBe(sha256(await readFile(path)))
    expect(await readdir(directory)).toEqual(['.publish.lock', 'debian-12.json', 'debian-12.qcow2'])
  })

  test('that is no image fails and leaves nothing', async () => {
    server.put('/disk.qcow2', '<html>login please</html>')
    const { checksum: _, ...image } = remote()
    const error = await failure(store.ensure(image, forever()))
    expect(error).toMatchObject({ code: 'not_an_image', retryable: false })
    expect(error.message).toContain(server.url('/disk.qcow2'))
    expect(await readdir(directory)).toEqual([])
  })

  test('that does not fit on its smallest disk fails', async () => {
    await makeQcow2(join(outside, 'big.qcow2'))
    await runCommand(['qemu-img', 'resize', '-q', '-f', 'qcow2', join(outside, 'big.qcow2'), '2G'])
    const big = await readFile(join(outside, 'big.qcow2'))
    server.put('/big.qcow2', big)
    const source = { source_url: server.url('/big.qcow2'), checksum: `sha256:${sha256(big)}` }
    const error = await failure(store.ensure(remote(source), forever()))
    expect(error.message).toContain('needs a disk of 2 GiB, min_disk_gb says 1')
  })

  test('shows its progress while it is downloaded', async () => {
    server.misbehave({ kind: 'stall', afterBytes: 1000 })
    const seen = Promise.withResolvers<void>()
    const controller = new AbortController()
    const waiting = store.ensure(remote(), {
      signal: controller.signal,
      onProgress: ({ receivedBytes }) => receivedBytes > 0 && seen.resolve(),
    })
    await seen.promise
    expect(store.status('debian-12')).toEqual({
      state: 'downloading',
      receivedBytes: 1000,
      totalBytes: disk.length,
      code: '',
      reason: '',
    })
    controller.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
  })
})

describe.skipIf(!withQemuImg)('a failed download', () => {
  test('fails every waiter with the same error, and the next one tries afresh', async () => {
    server.misbehave({ kind: 'status', status: 404 })
    const errors = await Promise.all([1, 2, 3].map(() => failure(store.ensure(remote(), forever()))))
    expect(new Set(errors).size).toBe(1)
    expect(errors[0]?.message).toBe(`GET ${server.url('/disk.qcow2')}: HTTP status 404`)
    expect(server.requests).toHaveLength(1)
    expect(store.status('debian-12')).toMatchObject({ state: 'failed', code: 'http_status' })
    server.misbehave({ kind: 'serve' })
    await store.ensure(remote(), forever())
    expect(store.status('debian-12').state).toBe('available')
  })

  test('mentions the recipe where there is one', async () => {
    server.misbehave({ kind: 'status', status: 404 })
    const error = await failure(store.ensure(remote({ recipe: 'debian' }), forever()))
    expect(error.code).toBe('http_status')
    expect(error.message).toContain('berth image build debian-12')
  })

  test('of wrong bytes leaves nothing to continue', async () => {
    server.misbehave({ kind: 'wrong-bytes' })
    expect((await failure(store.ensure(remote(), forever()))).code).toBe('bad_checksum')
    expect(await readdir(directory)).toEqual([])
  })
})

describe.skipIf(!withQemuImg)('a waiter that leaves', () => {
  test('is told its own reason while the others get the image', async () => {
    server.misbehave({ kind: 'silence' }, { kind: 'serve' })
    const reason = new Error('instance deleted')
    const controller = new AbortController()
    const patient = newStore({ limits: { stallMs: 300, delay: async () => undefined } })
    const leaving = patient.ensure(remote(), { signal: controller.signal })
    const staying = patient.ensure(remote(), forever())
    await server.asked('/disk.qcow2')
    controller.abort(reason)
    await expect(leaving).rejects.toBe(reason)
    expect((await staying).image.id).toBe('debian-12')
  })

  test('as the last one stops the download, which the next continues', async () => {
    server.misbehave({ kind: 'stall', afterBytes: 70_000 }, { kind: 'serve' })
    const controllers = [new AbortController(), new AbortController()]
    const arrived = Promise.withResolvers<void>()
    const leaving = controllers.map(({ signal }) =>
      store.ensure(remote(), { signal, onProgress: ({ receivedBytes }) => receivedBytes > 0 && arrived.resolve() }),
    )
    await arrived.promise
    for (const controller of controllers) controller.abort(new Error('deleted'))
    await expect(Promise.allSettled(leaving)).resolves.toMatchObject([{ status: 'rejected' }, { status: 'rejected' }])
    await store.ensure(remote(), forever())
    expect(server.requests.map(({ range }) => range)).toEqual([null, expect.stringMatching(/^bytes=[1-9]\d*-$/)])
    expect(store.status('debian-12').state).toBe('available')
  })

  test('as the last one leaves the image missing, not failed', async () => {
    server.misbehave({ kind: 'silence' })
    const controller = new AbortController()
    const leaving = store.ensure(remote(), { signal: controller.signal })
    await server.asked('/disk.qcow2')
    controller.abort(new Error('deleted'))
    await expect(leaving).rejects.toThrow('deleted')
    await store.close()
    expect(store.status('debian-12').state).toBe('missing')
  })

  test('before it began is not waited for', async () => {
    const reason = new Error('deleted')
    await expect(store.ensure(remote(), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    expect(server.requests).toEqual([])
  })
})

describe.skipIf(!withQemuImg)('a changed source', () => {
  test('waits for the download of the old one, then is tried itself', async () => {
    server.misbehave({ kind: 'silence' }, { kind: 'serve' })
    const impatient = newStore({ limits: { stallMs: 200, attempts: 1 } })
    const old = failure(impatient.ensure(remote({ source_url: server.url('/old.qcow2') }), forever()))
    await server.asked('/old.qcow2')
    const { image } = await impatient.ensure(remote(), forever())
    expect((await old).code).toBe('stalled')
    expect(image.source_url).toBe(server.url('/disk.qcow2'))
  })

  test('does not continue the bytes of the old one', async () => {
    server.put('/old.qcow2', disk)
    server.misbehave({ kind: 'cut', afterBytes: 1000 }, { kind: 'serve' })
    const impatient = newStore({ limits: { attempts: 1 } })
    await failure(impatient.ensure(remote({ source_url: server.url('/old.qcow2') }), forever()))
    await impatient.ensure(remote(), forever())
    expect(server.requests.map(({ range }) => range)).toEqual([null, null])
  })
})

describe('an image without a source', () => {
  test('that has a recipe is not built, and the message says how', async () => {
    const error = await failure(store.ensure(entry({ recipe: 'debian' }), forever()))
    expect(error).toMatchObject({ code: 'image_not_built', retryable: false })
    expect(error.message).toContain('berth image build debian-12')
  })

  test('nor recipe is not available', async () => {
    const error = await failure(store.ensure(entry(), forever()))
    expect(error).toMatchObject({ code: 'image_not_available', retryable: false })
  })
})

describe.skipIf(!withQemuImg)('an image published by another process', () => {
  const importHere = () => importImage(join(outside, 'disk.qcow2'), { id: 'debian-12' }, directory)

  test('is found without a source', async () => {
    await importHere()
    const { image } = await store.ensure(entry(), forever())
    expect(image.origin).toBe('imported')
    expect(server.requests).toEqual([])
  })

  test('is listed after the next look', async () => {
    await store.rescan()
    expect(store.list()).toEqual([])
    await importHere()
    await store.rescan()
    expect(store.list()).toMatchObject([{ id: 'debian-12', origin: 'imported' }])
    await rm(join(directory, 'debian-12.json'))
    await store.rescan()
    expect(store.status('debian-12').state).toBe('missing')
  })

  test('ends the wait for a download of it', async () => {
    server.misbehave({ kind: 'silence' })
    const waiting = store.ensure(remote(), forever())
    await server.asked('/disk.qcow2')
    await importHere()
    await store.rescan()
    expect((await waiting).image.origin).toBe('imported')
    expect(await readdir(directory)).toEqual(['.publish.lock', 'debian-12.json', 'debian-12.qcow2'])
  })

  test('clears an earlier failure', async () => {
    server.misbehave({ kind: 'status', status: 404 })
    await failure(store.ensure(remote(), forever()))
    await importHere()
    await store.rescan()
    expect(store.status('debian-12').state).toBe('available')
  })

  test('that vanished is downloaded again', async () => {
    await store.ensure(remote(), forever())
    await rm(join(directory, 'debian-12.qcow2'))
    await store.ensure(remote(), forever())
    expect(server.requests).toHaveLength(2)
  })
})

describe.skipIf(!withQemuImg)('a killed process', () => {
  test('leaves a partial file that the next one continues', async () => {
    server.misbehave({ kind: 'stall', afterBytes: 200_000 }, { kind: 'serve' })
    const fixture = new URL('../testing/download-until-killed.ts', import.meta.url).pathname
    const child = spawn(process.execPath, [fixture, directory, server.url('/disk.qcow2'), sha256(disk)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    for await (const line of createInterface({ input: child.stdout })) if (Number(line) >= 200_000) break
    child.kill('SIGKILL')
    await once(child, 'exit')
    const { path } = await store.ensure(remote({ id: 'killed' }), forever())
    expect(server.requests.map(({ range }) => range)).toEqual([null, 'bytes=200000-'])
    expect((await readFile(path)).equals(disk)).toBe(true)
    expect(await readdir(directory)).toEqual(['.publish.lock', 'killed.json', 'killed.qcow2'])
  })
})

describe('unfinished files', () => {
  const day = 24 * 3_600_000
  async function leave(name: string, ageMs: number): Promise<void> {
    await writeFile(join(directory, name), 'x')
    await utimes(join(directory, name), (now - ageMs) / 1000, (now - ageMs) / 1000)
  }

  test('are removed after a day, with their notes', async () => {
    await leave('old.qcow2.download.partial', day + 1000)
    await leave('old.qcow2.download.partial.meta', day + 2000)
    await leave('alone.qcow2.download.partial.meta', day + 1000)
    await leave('built.qcow2.partial', day + 1000)
    await store.removeStalePartials(now)
    expect(await readdir(directory)).toEqual([])
  })

  test('are kept for a day, an old note as long as its file, and images for ever', async () => {
    const kept = ['a.json', 'a.qcow2', 'new.qcow2.download.partial', 'new.qcow2.download.partial.meta']
    await leave('a.json', 30 * day)
    await leave('a.qcow2', 30 * day)
    await leave('new.qcow2.download.partial', day - 1000)
    await leave('new.qcow2.download.partial.meta', 3 * day)
    await store.removeStalePartials(now)
    expect(await readdir(directory)).toEqual(kept)
  })

  test.skipIf(!withQemuImg)('of a running download are kept however old', async () => {
    server.misbehave({ kind: 'stall', afterBytes: 1000 })
    const controller = new AbortController()
    const arrived = Promise.withResolvers<void>()
    const waiting = store.ensure(remote(), {
      signal: controller.signal,
      onProgress: ({ receivedBytes }) => receivedBytes > 0 && arrived.resolve(),
    })
    await arrived.promise
    await store.removeStalePartials(Date.now() + 30 * day)
    expect(await readdir(directory)).toEqual([
      'debian-12.qcow2.download.partial',
      'debian-12.qcow2.download.partial.meta',
    ])
    controller.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
  })
})

describe.skipIf(!withQemuImg)('a closed store', () => {
  test('fails its waiters, keeps what came, and takes no more', async () => {
    server.misbehave({ kind: 'stall', afterBytes: 1000 })
    const arrived = Promise.withResolvers<void>()
    const waiting = failure(
      store.ensure(remote(), {
        ...forever(),
        onProgress: ({ receivedBytes }) => receivedBytes > 0 && arrived.resolve(),
      }),
    )
    await arrived.promise
    await store.close()
    expect(await waiting).toMatchObject({ code: 'store_closed', retryable: true })
    expect((await failure(store.ensure(remote(), forever()))).code).toBe('store_closed')
    expect((await readFile(join(directory, 'debian-12.qcow2.download.partial'))).length).toBe(1000)
  })
})

test('unfinished files of a day ago are looked for once an hour', async () => {
  let at = Date.now()
  const own = newStore({ clock: { now: () => at } })
  const partial = join(directory, 'old.qcow2.download.partial')
  const age = async (hours: number) => {
    await writeFile(partial, '')
    await utimes(partial, at / 1000, at / 1000 - hours * 3600)
  }
  await own.rescan()
  await age(25)
  await own.rescan()
  expect(await readdir(directory)).toEqual(['old.qcow2.download.partial'])
  at += 3_600_000
  await own.rescan()
  expect(await readdir(directory)).toEqual([])
})
