import { rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { stringify } from 'yaml'
import { DevProcess, hostSnapshot } from './dev-process.ts'

/** A source that sends the head of an image and then nothing more. */
async function stallingSource(): Promise<Server> {
  const server = createServer((_request, response) => {
    response.writeHead(200, { 'content-length': '100000000' })
    response.write(Buffer.alloc(65_536))
  })
  const { promise, resolve } = Promise.withResolvers<void>()
  server.listen(0, '127.0.0.1', resolve)
  await promise
  return server
}

describe('deletion in every state', () => {
  let dev: DevProcess
  let source: Server
  let catalogue: string
  let before: string[]

  beforeAll(async () => {
    source = await stallingSource()
    const address = source.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    catalogue = join(tmpdir(), `berth-catalogue-${process.pid}.yaml`)
    const common = { min_disk_gb: 1, architecture: 'x86_64', default_user: 'root', network: 'static' }
    const images = [
      { id: 'micro', title: 'micro', recipe: 'micro', ...common },
      {
        id: 'stalling',
        title: 'stalling',
        source_url: `http://127.0.0.1:${port}/image.qcow2`,
        sha256: '0'.repeat(64),
        ...common,
      },
      { id: 'debian-12', title: 'recipe only', recipe: 'debian-12', ...common },
    ]
    await writeFile(catalogue, stringify(images))
    const flags = ['--image-catalogue', catalogue, '--allow-private-image-sources', '--step-deadlines', 'image=6']
    dev = await DevProcess.open({ flags })
    before = await hostSnapshot(dev)
  })

  afterAll(async () => {
    await dev.down()
    await rm(catalogue)
    source.closeAllConnections()
    source.close()
  })

  async function expectGone(id: string): Promise<void> {
    const instance = await dev.reach(id, 'terminated')
    expect((await dev.operation(instance.operation_id)).status).toBe('succeeded')
    expect(await hostSnapshot(dev)).toEqual(before)
  }

  test('right after it was accepted', async () => {
    const id = await dev.create({})
    await dev.delete(id)
    await expectGone(id)
  })

  test('while its image is downloaded; the download stops and the create is cancelled', async () => {
    const id = await dev.create({ image: 'stalling' })
    const { operation_id: create } = await dev.get(id)
    for (;;) {
      const { data } = await dev.client.GET('/v1/images/{id}', { params: { path: { id: 'stalling' } } })
      if (data?.status.state === 'downloading' && data.status.received_bytes > 0) break
      await new Promise((resolve) => setTimeout(resolve, 50)) // images have no wait of their own
    }
    await dev.delete(id)
    await expectGone(id)
    expect(await dev.operation(create)).toMatchObject({ status: 'cancelled', error: { code: 'superseded' } })
  })

  test('while it boots', async () => {
    const id = await dev.create({})
    await dev.reach(id, 'running')
    await dev.delete(id)
    await expectGone(id)
  })

  test('while it shuts down', async () => {
    const id = await dev.create({})
    await dev.reach(id, 'running')
    await dev.act(id, 'stop', { grace_seconds: 600 }) // a guest that boots does not hear the power button
    await dev.delete(id)
    await expectGone(id)
  })

  test('while it is stopped', async () => {
    const id = await dev.create({})
    await dev.reach(id, 'running')
    await dev.act(id, 'stop', { force: true })
    await dev.reach(id, 'stopped')
    await dev.delete(id)
    await expectGone(id)
  })

  test('with berth dev killed in the middle of it', async () => {
    const id = await dev.create({})
    await dev.reach(id, 'running')
    await dev.delete(id)
    await dev.end('SIGKILL')
    await dev.start()
    await expectGone(id)
  })

  test('an image that does not come in time ends the create with the cause', async () => {
    const id = await dev.create({ image: 'stalling' })
    const instance = await dev.reach(id, 'terminated')
    expect(instance.status.reason).toBe('image_deadline_exceeded')
    const operation = await dev.operation(instance.operation_id)
    expect(operation).toMatchObject({ status: 'failed', error: { code: 'image_deadline_exceeded' } })
    expect(operation.error?.message).toContain('The step image did not end within 6 s')
    expect(await hostSnapshot(dev)).toEqual(before)
  })

  test('an image that is not built ends the create with the command that builds it', async () => {
    const id = await dev.create({ image: 'debian-12' })
    const instance = await dev.reach(id, 'terminated')
    expect(instance.status.reason).toBe('image_not_built')
    expect(instance.status.message).toContain('berth image build debian-12')
    expect(await dev.operation(instance.operation_id)).toMatchObject({
      status: 'failed',
      error: { code: 'image_not_built' },
    })
    expect(await hostSnapshot(dev)).toEqual(before)
  })
})
