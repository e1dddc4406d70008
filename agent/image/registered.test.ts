import { link, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { DesiredImage } from '@berth/contract/hosts/agent-protocol.ts'
import type { CatalogueImage } from '@berth/contract/images/images.ts'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { FaultyFileServer } from '../testing/faulty-file-server.ts'
import { failure, forever, ImageStoreFixture, sha256, withQemuImg } from '../testing/image-store-fixture.ts'
import { makeQcow2 } from '../testing/qemu-img.ts'
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

const sum = (bytes: Buffer) => `sha256:${sha256(bytes)}`
const newStore = (options: Partial<ImageStoreOptions> = {}) => fixture.newStore(options)
const remote = (more: Partial<CatalogueImage> = {}) => fixture.remote(more)

describe.skipIf(!withQemuImg)('an image made through the API', () => {
  const registered = (more: Partial<DesiredImage> = {}): DesiredImage => ({ ...remote(), registered: true, ...more })
  const removal = () => ({ id: 'debian-12', registered_checksum: sum(disk) })
  const nothing = ['.publish.lock']

  async function otherDisk(path: string): Promise<Buffer> {
    await makeQcow2(join(outside, 'other.qcow2'))
    const other = await readFile(join(outside, 'other.qcow2'))
    server.put(path, other)
    return other
  }

  test('is marked with its checksum, so that the next process knows it', async () => {
    const { image } = await store.ensure(registered(), forever())
    expect(image).toMatchObject({ origin: 'downloaded', registered_checksum: sum(disk) })
    const next = newStore()
    await next.ensure(registered(), forever())
    expect(next.list()).toEqual([image])
    expect(server.requests).toHaveLength(1)
  })

  test('is known by its mark also when a version before wrote that', async () => {
    await store.ensure(registered(), forever())
    const description = join(directory, 'debian-12.json')
    const { registered_checksum: _, ...rest } = JSON.parse(await readFile(description, 'utf8'))
    await writeFile(description, JSON.stringify({ ...rest, registered_sha256: sha256(disk) }))
    const next = newStore()
    await next.ensure(registered(), forever())
    expect(next.list()).toMatchObject([{ registered_checksum: sum(disk) }])
    expect(server.requests).toHaveLength(1)
    await next.close()
  })

  test('is not taken from a download of the catalogue, nor the other way round', async () => {
    await store.ensure(remote(), forever())
    const other = await otherDisk('/other.qcow2')
    const mine = registered({ source_url: server.url('/other.qcow2'), checksum: sum(other) })
    const { path } = await store.ensure(mine, forever())
    expect((await readFile(path)).equals(other)).toBe(true)
    await store.ensure(remote(), forever())
    expect((await readFile(path)).equals(disk)).toBe(true)
    expect(store.list()).toMatchObject([{ id: 'debian-12', sha256: sha256(disk) }])
    expect(store.list()[0]).not.toHaveProperty('registered_checksum')
  })

  test('that has the id of one that is gone gets its own bytes', async () => {
    await store.ensure(registered(), forever())
    const other = await otherDisk('/disk.qcow2')
    const { path } = await store.ensure(registered({ checksum: sum(other) }), forever())
    expect((await readFile(path)).equals(other)).toBe(true)
  })

  test('is what an operator imported under its id', async () => {
    await importImage(join(outside, 'disk.qcow2'), { id: 'debian-12' }, directory)
    const { image } = await store.ensure(registered({ checksum: `sha256:${'ab'.repeat(32)}` }), forever())
    expect(image.origin).toBe('imported')
    store.setUnwanted([{ id: 'debian-12', registered_checksum: `sha256:${'ab'.repeat(32)}` }])
    await store.removeUnwanted()
    expect(await readdir(directory)).toEqual([...nothing, 'debian-12.json', 'debian-12.qcow2'])
  })

  test('goes with its files when it is no longer wanted, also one that a process before this one brought', async () => {
    await store.ensure(registered(), forever())
    const next = newStore()
    next.setUnwanted([removal()])
    await next.removeUnwanted()
    expect(await readdir(directory)).toEqual(nothing)
    await store.rescan()
    expect(store.list()).toEqual([])
    expect(store.status('debian-12').state).toBe('missing')
  })

  test('goes when a crash has cut its removal short', async () => {
    await store.ensure(registered(), forever())
    await rm(join(directory, 'debian-12.qcow2'))
    const next = newStore()
    next.setUnwanted([removal()])
    await next.removeUnwanted()
    expect(await readdir(directory)).toEqual(nothing)
  })

  test('stays when another has its id by now', async () => {
    const { path } = await store.ensure(registered(), forever())
    store.setUnwanted([{ id: 'debian-12', registered_checksum: `sha256:${'cd'.repeat(32)}` }])
    await store.removeUnwanted()
    expect((await readFile(path)).equals(disk)).toBe(true)
    expect(store.list()).toHaveLength(1)
  })

  test('leaves instances the bytes they were made from', async () => {
    const { path } = await store.ensure(registered(), forever())
    await link(path, join(outside, 'base.qcow2'))
    store.setUnwanted([removal()])
    await store.removeUnwanted()
    expect((await readFile(join(outside, 'base.qcow2'))).equals(disk)).toBe(true)
  })

  test('leaves nothing of a download that failed or was given up', async () => {
    server.misbehave({ kind: 'status', status: 404 })
    await failure(store.ensure(registered(), forever()))
    expect(store.status('debian-12')).toMatchObject({ state: 'failed', registeredChecksum: sum(disk) })
    server.misbehave({ kind: 'stall', afterBytes: 1000 })
    const waiter = new AbortController()
    const given = store.ensure(registered(), {
      signal: waiter.signal,
      onProgress: () => waiter.abort(new Error('left')),
    })
    await expect(given).rejects.toThrow('left')
    await store.close()
    expect(await readdir(directory)).toContain('debian-12.qcow2.download.partial')
    store = newStore()
    store.setUnwanted([removal()])
    await store.removeUnwanted()
    expect(await readdir(directory)).toEqual([])
    expect(store.attempted()).toEqual([])
  })

  test('that is wanted again while it is removed is there afterwards', async () => {
    await store.ensure(registered(), forever())
    for (let round = 0; round < 10; round++) {
      store.setUnwanted([removal()])
      store.setUnwanted([])
      const { path } = await store.ensure(registered(), forever())
      expect((await readFile(path)).equals(disk)).toBe(true)
    }
  })

  test('that cannot be removed is tried again, and is said once', async () => {
    const lines: string[] = []
    const log = pino({ level: 'warn' }, { write: (line) => void lines.push(line) })
    await store.ensure(registered(), forever())
    const next = newStore({ log })
    await rm(join(directory, 'debian-12.qcow2'))
    await mkdir(join(directory, 'debian-12.qcow2', 'in-the-way'), { recursive: true })
    next.setUnwanted([removal()])
    await next.removeUnwanted()
    await next.removeUnwanted()
    await next.removeUnwanted()
    expect(lines.filter((line) => line.includes('cannot be removed now'))).toHaveLength(1)
    await rm(join(directory, 'debian-12.qcow2'), { recursive: true })
    await next.removeUnwanted()
    expect(await readdir(directory)).toEqual(nothing)
  })
})
