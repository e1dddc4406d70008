import type { Desired, ObservedImage } from '@berth/contract/hosts/agent-protocol.ts'
import type { HostImage, Image } from '@berth/contract/images/images.ts'
import { describe, expect, test } from 'vitest'
import { type EventStream, openEvents } from '../event-stream.ts'
import { type Stack, startStack, until } from '../stack.ts'

const sum = 'ab'.repeat(32)
const otherSum = 'cd'.repeat(32)
const spec = { source_url: 'https://images.example/base.qcow2', sha256: sum, min_disk_gb: 1, default_user: 'admin' }

const create = (stack: Stack, more: object = {}, id = 'base') =>
  stack.api<Image>('POST', '/v1/images', { id, spec: { ...spec, ...more } })

const show = async (stack: Stack, id = 'base') => (await stack.api<Image>('GET', `/v1/images/${id}`)).body

const list = async (stack: Stack, query = '') =>
  (await stack.api<{ items: Image[] }>('GET', `/v1/images${query}`)).body.items.map(({ id }) => id)

async function refused(answer: Promise<{ status: number; text: string }>) {
  const { status, text } = await answer
  const { code = '', detail = '' }: { code?: string; detail?: string } = JSON.parse(text)
  return { status, code, detail }
}

/** What a host says of an image that it has. */
function held(id: string, more: Partial<HostImage> = {}): ObservedImage {
  const about = { title: id, min_disk_gb: 2, architecture: 'x86_64', default_user: 'root', network: 'static' } as const
  const image: HostImage = {
    ...{ id, ...about, origin: 'downloaded', source_url: '', sha256: sum, size_bytes: 7, virtual_size_bytes: 9 },
    created_at: '2026-11-01T00:00:00Z',
    ...more,
  }
  return { id, state: 'available', received_bytes: 7, total_bytes: 7, reason: '', image }
}

const registered = (id: string, checksum = sum) => held(id, { registered_checksum: `sha256:${checksum}` })

const unfinished = (state: 'downloading' | 'failed', checksum = sum, received_bytes = 0): ObservedImage => ({
  ...{ id: 'base', state, received_bytes, total_bytes: 10, reason: state === 'failed' ? 'why' : '' },
  ...{ registered_checksum: `sha256:${checksum}`, image: null },
})

let sequence = 0

/** Report images as the host of a stack, or as its other host. */
async function report(stack: Stack, images: ObservedImage[], host: { credential: string } = stack): Promise<void> {
  const observed = {
    ...{ agent_session: 1, sequence: ++sequence, revision: 0, agent_version: 'test', hostname: 'test' },
    ...{ hypervisor: 'simulated', accelerator: 'none', accelerator_reason: '' },
    capacity: { vcpus: 8, memory_mb: 8192, disk_gb: 100 },
    images,
    instances: [],
  }
  const { status, text } = await stack.agentApi('POST', '/v1/agent/observed', observed, host.credential)
  if (status !== 204) throw new Error(text)
}

const desired = async (stack: Stack) => (await stack.agentApi<Desired>('GET', '/v1/agent/desired?since=0')).body

/** The events of images so far: once one of a VPC that is made now has come, all before it have. */
async function imageEvents(stack: Stack, stream: EventStream): Promise<string[]> {
  const { body } = await stack.api<{ id: string }>('POST', '/v1/vpcs', { spec: { cidr: '10.0.0.0/16' } })
  await stream.until(() => stream.events.some(({ data }) => data.resource_id === body.id))
  return stream.events
    .filter(({ event }) => event.startsWith('image.'))
    .map(({ event, data }) => [event, data.resource_id, data.detail.state ?? ''].join(' ').trim())
}

describe('an image made through the API', () => {
  test('is there as it was made, in the list and for instances', async () => {
    await using stack = await startStack({ agent: false })
    const made = await create(stack, { title: 'Our base', network: 'dhcp', min_disk_gb: 2 })
    expect(made).toMatchObject({ status: 201, headers: { location: '/v1/images/base' } })
    expect(made.body).toEqual({
      id: 'base',
      metadata: { name: 'base', labels: {}, created_at: expect.stringMatching(/Z$/), generation: 1 },
      spec: {
        ...{ ...spec, checksum: `sha256:${sum}`, title: 'Our base', network: 'dhcp', min_disk_gb: 2 },
        ...{ architecture: 'x86_64', datasource: 'disk', ready_timeout_seconds: 300 },
      },
      status: { state: 'missing', size_bytes: 0, received_bytes: 0, reason: '', firmware: '' },
    })
    expect(await show(stack)).toEqual(made.body)
    expect(await list(stack)).toEqual(['base', 'micro', 'ubuntu-22.04'])
    expect((await create(stack, {}, 'team.base-2')).body).toMatchObject({
      metadata: { name: 'team-base-2' },
      spec: { title: 'team.base-2', network: 'static', datasource: 'disk' },
    })
    expect((await create(stack, { datasource: 'network' }, 'from-net')).body.spec.datasource).toBe('network')
    const instance = await stack.create({ image: 'base' })
    expect(instance.spec).toMatchObject({ image: 'base', disk_gb: 2 })
    const small = await stack.api('POST', '/v1/instances', { spec: { type: 'micro', image: 'base', disk_gb: 1 } })
    expect(small).toMatchObject({ status: 422, body: { errors: [{ pointer: '/spec/disk_gb' }] } })
  })

  test('is there after a restart of the server', async () => {
    await using stack = await startStack({ agent: false })
    const { body } = await create(stack)
    await stack.restartServer()
    expect(await show(stack)).toEqual(body)
  })

  test('has a name and labels that can be changed and lists that can be narrowed to them', async () => {
    await using stack = await startStack({ agent: false })
    await create(stack)
    const etag = (await stack.api('GET', '/v1/images/base')).headers.etag ?? ''
    const body = { metadata: { name: 'renamed', labels: { team: 'platform' } } }
    const patched = await stack.api<Image>('PATCH', '/v1/images/base', body, { 'if-match': etag })
    expect(patched).toMatchObject({ status: 200, body: { metadata: { ...body.metadata, generation: 2 } } })
    expect((await stack.api('PATCH', '/v1/images/base', body, { 'if-match': etag })).status).toBe(412)
    expect((await stack.api<Image>('PATCH', '/v1/images/base', body)).body).toEqual(patched.body)
    expect(await list(stack, '?label_selector=team')).toEqual(['base'])
    expect(await list(stack, '?label_selector=!team')).toEqual(['micro', 'ubuntu-22.04'])
    expect(await list(stack, '?name=renamed')).toEqual(['base'])
    expect(await list(stack, '?name=ubuntu-22-04')).toEqual(['ubuntu-22.04'])
  })

  test('cannot have the id of another, be that of the catalogue, of a host or made here', async () => {
    await using stack = await startStack({ agent: false })
    await report(stack, [held('imported', { origin: 'imported' })])
    await create(stack)
    for (const id of ['micro', 'imported', 'base']) {
      expect(await refused(create(stack, {}, id))).toMatchObject({ status: 409, code: 'already_exists' })
    }
    const answers = await Promise.all(Array.from({ length: 5 }, () => create(stack, {}, 'twice')))
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 409, 409, 409, 409])
  })

  test('has one checksum, however that was written, and shows it in one form', async () => {
    await using stack = await startStack({ agent: false })
    const [upper, sha512] = [sum.toUpperCase(), 'ef'.repeat(64)]
    for (const [id, given, checksum] of [
      ['upper', { sha256: upper }, `sha256:${sum}`],
      ['digits', { sha256: undefined, checksum: upper }, `sha256:${sum}`],
      ['both', { checksum: `SHA256:${upper}` }, `sha256:${sum}`],
      ['longer', { sha256: undefined, checksum: `sha512:${sha512.toUpperCase()}` }, `sha512:${sha512}`],
      ['line', { sha256: undefined, checksum: `\ufeff${sha512} *renamed.qcow2\r\n` }, `sha512:${sha512}`],
      [
        'file',
        { sha256: undefined, checksum: `# two\r\nSHA256 (a) = ${otherSum}\r\nSHA256 (base.qcow2) = ${sum}\r\n` },
        `sha256:${sum}`,
      ],
    ] as const) {
      const made = await create(stack, given, id)
      expect(made, id).toMatchObject({ status: 201 })
      const sha256 = checksum.startsWith('sha256:') ? sum : ''
      expect(made.body.spec).toMatchObject({ checksum, sha256 })
      expect((await show(stack, id)).spec).toMatchObject({ checksum, sha256 })
    }
  })

  test('that boots by UEFI only says so, and no instance is made from it until another one is there', async () => {
    await using stack = await startStack({ agent: false })
    await create(stack)
    await report(stack, [held('base', { registered_checksum: `sha256:${sum}`, firmware: 'uefi' })])
    expect((await show(stack)).status).toMatchObject({ state: 'available', firmware: 'uefi' })
    const answer = await refused(stack.api('POST', '/v1/instances', { spec: { type: 'micro', image: 'base' } }))
    expect(answer).toMatchObject({ status: 422, code: 'image_needs_uefi' })
    expect(answer.detail).toContain('Use one that boots by BIOS')
    await report(stack, [held('base', { origin: 'imported', firmware: 'bios' })])
    expect((await show(stack)).status.firmware).toBe('bios')
    expect((await stack.create({ image: 'base' })).spec.image).toBe('base')
  })

  test('may come from this machine only where that is allowed', async () => {
    await using stack = await startStack({ agent: false, settings: { allowPrivateImageSources: ['127.0.0.1'] } })
    expect((await create(stack, { source_url: 'http://127.0.0.1/a' }, 'a')).status).toBe(201)
    expect((await create(stack, { source_url: 'http://localhost/a' }, 'b')).status).toBe(201)
    expect((await create(stack, { source_url: 'http://169.254.169.254/a' }, 'c')).status).toBe(422)
  })

  test('stands as it was made when a catalogue names its id later, and the catalogue when it is deleted', async () => {
    await using stack = await startStack({ agent: false })
    await create(stack)
    const catalogued = { id: 'base', title: 'Catalogued', min_disk_gb: 9, architecture: 'x86_64' } as const
    const more = { default_user: 'root', network: 'static', recipe: 'micro' } as const
    await stack.restartServer({ images: [{ ...catalogued, ...more }] })
    expect((await show(stack)).spec).toMatchObject(spec)
    expect((await stack.api('DELETE', '/v1/images/base')).status).toBe(204)
    expect((await show(stack)).spec).toMatchObject({ title: 'Catalogued', source_url: '' })
  })
})

describe('deleting an image', () => {
  test('that a live instance is made from is refused and names it; afterwards nothing can be made from it', async () => {
    await using stack = await startStack()
    await create(stack)
    const { id } = await stack.createReady({ image: 'base' })
    const inUse = await refused(stack.api('DELETE', '/v1/images/base'))
    expect(inUse).toMatchObject({ status: 409, code: 'in_use' })
    expect(inUse.detail).toContain(id)
    await stack.ended(await stack.delete(id))
    expect((await stack.api('DELETE', '/v1/images/base')).status).toBe(204)
    expect((await stack.api('GET', '/v1/images/base')).status).toBe(404)
    expect((await stack.api('DELETE', '/v1/images/base')).status).toBe(404)
    expect((await stack.get(id)).spec.image).toBe('base')
    const late = await stack.api('POST', '/v1/instances', { spec: { type: 'micro', image: 'base' } })
    expect(late).toMatchObject({ status: 422, body: { errors: [{ pointer: '/spec/image' }] } })
  })

  test('of the catalogue or of a host is refused with where it can be done, as is a change', async () => {
    await using stack = await startStack({ agent: false })
    await report(stack, [held('imported', { origin: 'imported' })])
    for (const [id, where] of [
      ['micro', 'catalogue'],
      ['imported', 'host'],
    ] as const) {
      for (const [method, body] of [
        ['DELETE', undefined],
        ['PATCH', { metadata: { labels: { a: 'b' } } }],
      ] as const) {
        const answer = await refused(stack.api(method, `/v1/images/${id}`, body))
        expect(answer).toMatchObject({ status: 409, code: 'read_only' })
        expect(answer.detail).toContain(where)
      }
      expect((await show(stack, id)).metadata.labels).toEqual({})
    }
    expect((await stack.api('DELETE', '/v1/images/none')).status).toBe(404)
  })

  test('while an instance is made from it: either the instance has its image, or there is no instance', async () => {
    await using stack = await startStack({ agent: false })
    for (let round = 0; round < 10; round++) {
      await create(stack)
      const [made, deleted] = await Promise.all([
        stack.api<{ id: string }>('POST', '/v1/instances', { spec: { type: 'micro', image: 'base' } }),
        stack.api('DELETE', '/v1/images/base'),
      ])
      expect([
        [201, 409],
        [422, 204],
      ]).toContainEqual([made.status, deleted.status])
      if (made.status !== 201) continue
      await stack.delete(made.body.id)
      expect((await stack.api('DELETE', '/v1/images/base')).status).toBe(204)
    }
  })
})

describe('what hosts report of an image', () => {
  test('is its state, the best of all hosts, and an event when that changes', async () => {
    await using stack = await startStack({ agent: false })
    await create(stack)
    const stream = await openEvents(stack.port)
    const states: string[] = []
    const other = stack.otherHost
    for (const [images, host] of [
      [[unfinished('downloading')], stack],
      [[unfinished('downloading', sum, 5)], stack],
      [[unfinished('failed')], stack],
      [[unfinished('failed')], other],
      [[unfinished('downloading')], other],
      [[registered('base')], other],
      [[registered('base')], stack],
      [[], other],
      [[], stack],
    ] as const) {
      await report(stack, [...images], host)
      states.push((await show(stack)).status.state)
    }
    expect(states).toEqual(
      'downloading downloading failed failed downloading available available available missing'.split(' '),
    )
    expect(await imageEvents(stack, stream)).toEqual(
      ['downloading', 'failed', 'downloading', 'available', 'missing'].map((state) => `image.updated base ${state}`),
    )
    stream.drop()
  })

  test('counts only for the image that it was downloaded for', async () => {
    await using stack = await startStack({ agent: false })
    await create(stack)
    const stream = await openEvents(stack.port)
    for (const strange of [registered('base', otherSum), unfinished('failed', otherSum), held('base')]) {
      await report(stack, [strange])
      expect((await show(stack)).status).toEqual({
        state: 'missing',
        size_bytes: 0,
        received_bytes: 0,
        reason: '',
        firmware: '',
      })
    }
    await report(stack, [held('base', { origin: 'imported' })])
    expect((await show(stack)).status).toMatchObject({ state: 'available', size_bytes: 7 })
    await report(stack, [registered('micro')])
    expect((await show(stack, 'micro')).status.state).toBe('missing')
    await report(stack, [registered('unknown')])
    expect((await stack.api('GET', '/v1/images/unknown')).status).toBe(404)
    expect(await list(stack)).toEqual(['base', 'micro', 'ubuntu-22.04'])
    expect(await imageEvents(stack, stream)).toEqual(['image.updated base available', 'image.updated base missing'])
    stream.drop()
  })

  test('of the catalogue is an event as well, and one that only a host has comes and goes with it', async () => {
    await using stack = await startStack({ agent: false })
    const stream = await openEvents(stack.port)
    const own = held('imported', { origin: 'imported' })
    await report(stack, [held('micro', { origin: 'built' })])
    await report(stack, [held('micro', { origin: 'built' }), own])
    await report(stack, [own], stack.otherHost)
    await report(stack, [])
    await report(stack, [], stack.otherHost)
    expect(await imageEvents(stack, stream)).toEqual([
      'image.updated micro available',
      'image.created imported',
      'image.updated micro missing',
      'image.deleted imported',
    ])
    stream.drop()
  })
})

describe('what a host is told', () => {
  test('of an image is how it was made', async () => {
    await using stack = await startStack({ agent: false })
    await create(stack)
    const { id } = await stack.create({ image: 'base' })
    await report(stack, [])
    await until(
      () => stack.get(id),
      ({ status }) => status.host_id !== '',
    )
    const first = await desired(stack)
    expect(first.images).toEqual([
      {
        id: 'base',
        title: 'base',
        ...{ source_url: spec.source_url, checksum: `sha256:${sum}`, min_disk_gb: 1, default_user: 'admin' },
        architecture: 'x86_64',
        network: 'static',
        datasource: 'disk',
        registered: true,
      },
    ])
    expect(first.removed_images).toEqual([])
  })

  test('of one that is no more is to remove its download: at once, once, and again when it finds one later', async () => {
    await using stack = await startStack({ agent: false })
    await create(stack)
    await report(stack, [registered('base'), held('debian')])
    const { revision } = await desired(stack)
    await stack.api('DELETE', '/v1/images/base')
    const told = await desired(stack)
    expect(told.removed_images).toEqual([{ id: 'base', registered_checksum: `sha256:${sum}` }])
    expect(told.revision).toBeGreaterThan(revision)
    await report(stack, [registered('base'), held('debian')])
    expect((await desired(stack)).revision).toBe(told.revision)
    await report(stack, [held('debian')])
    expect((await desired(stack)).removed_images).toEqual([])
    await report(stack, [registered('base')])
    const again = await desired(stack)
    expect(again.removed_images).toEqual([{ id: 'base', registered_checksum: `sha256:${sum}` }])
    expect(again.revision).toBeGreaterThan(told.revision)
    expect((await create(stack, { sha256: otherSum })).status).toBe(201)
    expect((await desired(stack)).removed_images).toEqual([{ id: 'base', registered_checksum: `sha256:${sum}` }])
    await stack.api('DELETE', '/v1/images/base')
    expect((await create(stack)).status).toBe(201)
    expect((await desired(stack)).removed_images).toEqual([])
  })
})
