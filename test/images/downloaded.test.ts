import { createHash } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { HostError } from '@berth/agent/host-driver.ts'
import { ImageDownloadError } from '@berth/agent/image/download-error.ts'
import { observeImages } from '@berth/agent/image/report.ts'
import { ImageStore } from '@berth/agent/image/store.ts'
import { SimulatedHost } from '@berth/agent/simulated/host.ts'
import { FaultyFileServer } from '@berth/agent/testing/faulty-file-server.ts'
import { hasQemuImg, makeQcow2 } from '@berth/agent/testing/qemu-img.ts'
import type { DesiredImage, DesiredInstance, RemovedImage } from '@berth/contract/hosts/agent-protocol.ts'
import type { Image } from '@berth/contract/images/images.ts'
import type { Instance } from '@berth/contract/instances/instances.ts'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type Stack, startStack, until } from '../stack.ts'

const sum = 'ab'.repeat(32)
const otherSum = 'cd'.repeat(32)
const spec = { source_url: 'https://images.example/base.qcow2', sha256: sum, min_disk_gb: 1, default_user: 'admin' }

const create = (stack: Stack, more: object = {}, id = 'base') =>
  stack.api<Image>('POST', '/v1/images', { id, spec: { ...spec, ...more } })

const show = async (stack: Stack, id = 'base') => (await stack.api<Image>('GET', `/v1/images/${id}`)).body

/** A simulated host with the image store of a real one. */
class HostWithImages extends SimulatedHost {
  readonly store: ImageStore
  #changed: () => void = () => {}

  constructor(directory: string) {
    super()
    this.store = new ImageStore({
      directory,
      log: pino({ level: 'silent' }),
      clock: { now: Date.now },
      allowPrivateSources: ['127.0.0.1'],
      limits: { delay: async () => undefined },
    })
  }

  override images() {
    return observeImages(this.store)
  }

  override onImagesChange(listener: () => void): void {
    this.#changed = listener
  }

  override removeImages(images: readonly RemovedImage[]): void {
    this.store.setUnwanted(images)
    void this.store.removeUnwanted().then(() => this.#changed())
  }

  override async ensureImage(
    instance: DesiredInstance,
    image: DesiredImage,
    options: { signal: AbortSignal; onProgress: () => void },
  ): Promise<void> {
    try {
      await this.store.ensure(image, options)
    } catch (error) {
      if (!(error instanceof ImageDownloadError)) throw error
      throw new HostError('image_download_failed', error.message, { retryable: error.retryable, cause: error })
    }
    const { registered: _, ...catalogued } = image
    await super.ensureImage(instance, catalogued, options)
  }
}

describe.skipIf(!(await hasQemuImg()))('on a host, an image made through the API', () => {
  let server: FaultyFileServer
  let directory: string
  let machine: HostWithImages
  let disk: Buffer
  beforeEach(async () => {
    server = await FaultyFileServer.start()
    directory = await mkdtemp(join(tmpdir(), 'berth-images-'))
    machine = new HostWithImages(directory)
    disk = await newDisk('first')
    server.put('/base.qcow2', disk)
  })
  afterEach(async () => {
    await server.close()
    await machine.store.close()
    await rm(directory, { recursive: true })
  })

  async function newDisk(name: string): Promise<Buffer> {
    const path = join(await mkdtemp(join(tmpdir(), 'berth-disk-')), name)
    await makeQcow2(path)
    const bytes = await readFile(path)
    await rm(join(path, '..'), { recursive: true })
    return bytes
  }

  const start = () => startStack({ machine, settings: { allowPrivateImageSources: ['127.0.0.1'] } })
  const source = (bytes: Buffer) => ({
    source_url: server.url('/base.qcow2'),
    sha256: createHash('sha256').update(bytes).digest('hex'),
  })
  const files = async () => (await readdir(directory)).filter((name) => name !== '.publish.lock')
  const left = (wanted: (names: string[]) => boolean) => until(files, wanted)

  test('is downloaded for its first instance, stays for the next, and leaves nothing when it is deleted', async () => {
    await using stack = await start()
    await create(stack, source(disk))
    const first = await stack.createReady({ image: 'base' })
    await until(
      () => show(stack),
      ({ status }) => status.state === 'available' && status.size_bytes === disk.length,
    )
    await stack.ended(await stack.delete(first.id))
    const second = await stack.createReady({ image: 'base' })
    expect(server.requests).toHaveLength(1)
    await stack.ended(await stack.delete(second.id))
    expect(await files()).toEqual(['base.json', 'base.qcow2'])
    expect((await stack.api('DELETE', '/v1/images/base')).status).toBe(204)
    await left((names) => names.length === 0)
  })

  test('is checked against SHA-512 where that is what was given', async () => {
    await using stack = await start()
    const hex = createHash('sha512').update(disk).digest('hex').toUpperCase()
    const { source_url } = source(disk)
    await create(stack, { source_url, sha256: undefined, checksum: `SHA512 (base.qcow2) = ${hex}` })
    await create(stack, { source_url, sha256: undefined, checksum: `sha512:${'0'.repeat(128)}` }, 'other')
    const { id } = await stack.createReady({ image: 'base' })
    expect(JSON.parse(await readFile(join(directory, 'base.json'), 'utf8'))).toMatchObject({
      registered_checksum: `sha512:${hex.toLowerCase()}`,
    })
    const { body } = await stack.api<Instance>('POST', '/v1/instances', { spec: { type: 'micro', image: 'other' } })
    expect((await stack.ended(body.operation_id)).error?.message).toContain('SHA-512 000')
    await stack.ended(await stack.delete(id))
    await stack.api('DELETE', '/v1/images/base')
    await left((names) => names.length === 0)
  })

  test('that is deleted while the agent is away is removed when it comes back', async () => {
    await using stack = await start()
    await create(stack, source(disk))
    const { id } = await stack.createReady({ image: 'base' })
    await stack.ended(await stack.delete(id))
    await until(
      () => show(stack),
      ({ status }) => status.state === 'available',
    )
    await stack.stopAgent()
    expect((await stack.api('DELETE', '/v1/images/base')).status).toBe(204)
    await stack.restartServer()
    expect(await files()).toEqual(['base.json', 'base.qcow2'])
    stack.startAgent()
    await left((names) => names.length === 0)
  })

  test('whose bytes are others than promised ends the create, and can be deleted with its failure', async () => {
    await using stack = await start()
    await create(stack, { ...source(disk), sha256: otherSum })
    const { id, operation_id } = await stack.create({ image: 'base' })
    expect((await stack.ended(operation_id)).error).toMatchObject({ code: 'image_download_failed' })
    await stack.reach(id, 'terminated')
    const { status } = await until(
      () => show(stack),
      (image) => image.status.state === 'failed',
    )
    expect(status.reason).toContain('SHA-256')
    expect((await stack.api('DELETE', '/v1/images/base')).status).toBe(204)
    await until(
      () => machine.store.attempted(),
      (ids) => ids.length === 0,
    )
    expect(await files()).toEqual([])
    await create(stack, source(disk))
    expect((await show(stack)).status.state).toBe('missing')
    await stack.createReady({ image: 'base' })
  })

  test('that is made anew with other bytes under the same id and URL gives its instances those', async () => {
    await using stack = await start()
    await create(stack, source(disk))
    const { id } = await stack.createReady({ image: 'base' })
    await stack.ended(await stack.delete(id))
    expect((await stack.api('DELETE', '/v1/images/base')).status).toBe(204)
    const other = await newDisk('second')
    server.put('/base.qcow2', other)
    await create(stack, source(other))
    await stack.createReady({ image: 'base' })
    expect((await readFile(join(directory, 'base.qcow2'))).equals(other)).toBe(true)
    expect(
      (
        await until(
          () => show(stack),
          ({ status }) => status.state === 'available',
        )
      ).spec.sha256,
    ).toBe(source(other).sha256)
  })
})
