import type { PublicIp } from '@berth/contract/networks/public-ips.ts'
import { describe, expect, test } from 'vitest'
import { startStack } from '../stack.ts'
import { addresses, allocate, attach, inForce, list, plain, publicPools, start } from './public-ip-stack.ts'

describe('an address', () => {
  test('is allocated from the first pool or the one that is named, with metadata and an id of the caller', async () => {
    await using stack = await start({ agent: false })
    const answer = await stack.api<PublicIp>('POST', '/v1/public-ips', {})
    const { id } = answer.body
    expect(answer.headers.location).toBe(`/v1/public-ips/${id}`)
    expect(answer.body).toEqual({
      id: expect.stringMatching(/^pip-[0-9a-hjkmnp-tv-z]{20}$/),
      metadata: { name: id, labels: {}, created_at: expect.any(String), generation: 1 },
      spec: { pool: 'default', instance_id: '' },
      status: { address: '203.0.113.1', auto_assigned: false },
    })
    const metadata = { name: 'web', labels: { env: 'prod' } }
    const named = await allocate(stack, { id: 'pip-web', metadata, spec: { pool: 'lab', instance_id: '' } })
    expect(named).toMatchObject({ id: 'pip-web', metadata, spec: { pool: 'lab' }, status: { address: '198.51.100.0' } })
    expect((await stack.api('GET', '/v1/public-ips/pip-web')).body).toEqual(named)
    expect(await list(stack)).toEqual([named, answer.body].sort((a, b) => (a.id < b.id ? -1 : 1)))
    expect(await list(stack, '?pool=lab')).toEqual([named])
    expect(await list(stack, '?label_selector=env%3Dprod')).toEqual([named])
    expect(await list(stack, '?instance_id=inst-none')).toEqual([])
  })

  test('is handed out again last once it was released', async () => {
    await using stack = await start({ agent: false })
    const [first, second] = [await allocate(stack), await allocate(stack)]
    for (const { id } of [second, first]) {
      expect((await stack.api('DELETE', `/v1/public-ips/${id}`)).status).toBe(204)
      expect((await stack.api('GET', `/v1/public-ips/${id}`)).status).toBe(404)
    }
    const taken: string[] = []
    for (let n = 0; n < 6; n++) taken.push((await allocate(stack)).status.address)
    const [a, b] = [second.status.address, first.status.address]
    expect(taken).toEqual(['203.0.113.3', '203.0.113.4', '203.0.113.5', '203.0.113.6', a, b])
  })

  test('of a pool that is full is refused, and nothing is kept', async () => {
    await using stack = await start({ agent: false })
    const spec = { pool: 'lab' }
    const answers = await Promise.all(
      Array.from({ length: 5 }, () => stack.api<PublicIp>('POST', '/v1/public-ips', { spec })),
    )
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 201, 422, 422, 422])
    const refused = await stack.api('POST', '/v1/public-ips', { id: 'pip-late', spec }, { 'idempotency-key': 'k' })
    expect(refused).toMatchObject({ status: 422, body: { code: 'no_public_addresses' } })
    expect(refused.body.detail).toContain('Pool lab (198.51.100.0/31)')
    expect((await addresses(stack)).sort()).toEqual(['198.51.100.0', '198.51.100.1'])
    await stack.api('DELETE', `/v1/public-ips/${(await list(stack))[0]?.id}`)
    const later = await stack.api('POST', '/v1/public-ips', { id: 'pip-late', spec }, { 'idempotency-key': 'k' })
    expect(later.status).toBe(201)
  })

  test('stays with who has it when the pools of the server change', async () => {
    await using stack = await start({ agent: false })
    const kept = await allocate(stack, { id: 'pip-kept' })
    await stack.restartServer({ publicPools: [{ name: 'other', cidr: '203.0.113.0/31' }] })
    expect((await stack.api('GET', '/v1/public-ips/pip-kept')).body).toEqual(kept)
    expect(await allocate(stack)).toMatchObject({ spec: { pool: 'other' }, status: { address: '203.0.113.0' } })
    expect(await stack.api('POST', '/v1/public-ips', {})).toMatchObject({ body: { code: 'no_public_addresses' } })
    await stack.api('DELETE', '/v1/public-ips/pip-kept')
    expect((await allocate(stack)).status.address).toBe('203.0.113.1')
  })

  test('of a server without pools is refused', async () => {
    await using stack = await startStack({ agent: false })
    const refused = await stack.api('POST', '/v1/public-ips', {})
    expect(refused).toMatchObject({ status: 422, body: { code: 'no_public_addresses' } })
    expect(await stack.api('POST', '/v1/public-ips', { spec: { pool: 'a' } })).toMatchObject({
      status: 422,
      body: { code: 'validation_failed', errors: [{ pointer: '/spec/pool' }] },
    })
  })
})

test('pools that do not fit keep the server from starting, with an error that names them', async () => {
  await using stack = await start({ agent: false })
  const bad = stack.restartServer({ publicPools: [...publicPools, { name: 'more', cidr: '203.0.113.0/24' }] })
  await expect(bad).rejects.toThrow('public pool more=203.0.113.0/24: its range overlaps that of pool default')
  await stack.startServer()
})

describe('an attached address', () => {
  test('is shown by its instance, reaches the host, and is in force at the generation that is observed', async () => {
    await using stack = await start()
    const { id, metadata } = await stack.createReady(plain)
    expect((await stack.get(id)).status.public_ip).toBe('')
    const pip = await allocate(stack, { spec: { instance_id: id } })
    expect(pip.spec.instance_id).toBe(id)
    const shown = await stack.get(id)
    expect(shown.status.public_ip).toBe('203.0.113.1')
    expect(shown.metadata.generation).toBe(metadata.generation + 1)
    const reached = await inForce(stack, id)
    expect(reached.status.state).toBe('running')
    expect(stack.host.publicAddresses()).toEqual({ '203.0.113.1': id })
    expect((await stack.list()).map(({ status }) => status.public_ip)).toEqual(['203.0.113.1'])
    expect(await list(stack, `?instance_id=${id}`)).toEqual([pip])

    const detached = await attach(stack, pip.id, '')
    expect(detached).toMatchObject({ spec: { instance_id: '' }, metadata: { generation: 2 } })
    expect((await stack.get(id)).status.public_ip).toBe('')
    await inForce(stack, id)
    expect(stack.host.publicAddresses()).toEqual({})
    expect((await stack.get(id)).status.started_at).toBe(reached.status.started_at)
  })

  test('stays through stop and start', async () => {
    await using stack = await start()
    const { id } = await stack.createReady(plain)
    await allocate(stack, { spec: { instance_id: id } })
    await stack.ended(await stack.act(id, 'stop'))
    expect((await stack.get(id)).status).toMatchObject({ state: 'stopped', public_ip: '203.0.113.1' })
    await stack.ended(await stack.act(id, 'start'))
    expect((await stack.get(id)).status).toMatchObject({ state: 'running', public_ip: '203.0.113.1' })
    expect(stack.host.publicAddresses()).toEqual({ '203.0.113.1': id })
  })

  test('moves to another instance, also from one that is stopped', async () => {
    await using stack = await start()
    const [a, b, c] = [await stack.createReady(plain), await stack.createReady(plain), await stack.createReady(plain)]
    const pip = await allocate(stack, { spec: { instance_id: a.id } })
    await attach(stack, pip.id, b.id)
    for (const { id } of [a, b]) await inForce(stack, id)
    expect(stack.host.publicAddresses()).toEqual({ '203.0.113.1': b.id })
    expect((await stack.get(a.id)).status.public_ip).toBe('')
    await stack.ended(await stack.act(b.id, 'stop'))
    await attach(stack, pip.id, c.id)
    for (const { id } of [b, c]) await inForce(stack, id)
    expect(stack.host.publicAddresses()).toEqual({ '203.0.113.1': c.id })
    await stack.ended(await stack.act(c.id, 'stop'))
    await attach(stack, pip.id, '')
    await inForce(stack, c.id)
    expect(stack.host.publicAddresses()).toEqual({})
  })

  test('is one an instance: a second is refused, the same again changes nothing', async () => {
    await using stack = await start({ agent: false })
    const { id } = await stack.create(plain)
    const pip = await allocate(stack, { spec: { instance_id: id } })
    const generation = (await stack.get(id)).metadata.generation
    expect(await attach(stack, pip.id, id)).toEqual(pip)
    expect((await stack.get(id)).metadata.generation).toBe(generation)
    const other = await allocate(stack)
    const body = { spec: { instance_id: id } }
    for (const answer of [
      await stack.api('POST', '/v1/public-ips', body),
      await stack.api('PATCH', `/v1/public-ips/${other.id}`, body),
    ]) {
      expect(answer).toMatchObject({
        status: 422,
        body: { code: 'validation_failed', errors: [{ pointer: '/spec/instance_id' }] },
      })
      expect(answer.body.detail).toContain(`203.0.113.1 (${pip.id})`)
    }
    expect(await addresses(stack)).toHaveLength(2)
  })

  test('keeps its resource from being released, which names the instance', async () => {
    await using stack = await start({ agent: false })
    const { id } = await stack.create(plain)
    const pip = await allocate(stack, { spec: { instance_id: id } })
    const refused = await stack.api('DELETE', `/v1/public-ips/${pip.id}`)
    expect(refused).toMatchObject({ status: 409, body: { code: 'in_use' } })
    expect(refused.body.detail).toContain(id)
    await attach(stack, pip.id, '')
    expect((await stack.api('DELETE', `/v1/public-ips/${pip.id}`)).status).toBe(204)
  })

  test('is detached and stays allocated when its instance is gone, not before', async () => {
    await using stack = await start()
    const { id } = await stack.createReady(plain)
    const pip = await allocate(stack, { spec: { instance_id: id } })
    await inForce(stack, id)
    const release = stack.hold('remove')
    const deletion = await stack.delete(id, '?grace_seconds=0')
    await stack.stepRuns(deletion, 'clean-up')
    expect((await list(stack))[0]).toEqual(pip)
    expect((await stack.get(id)).status.public_ip).toBe('203.0.113.1')
    release()
    await stack.ended(deletion)
    expect((await list(stack))[0]).toMatchObject({ id: pip.id, metadata: { generation: 2 }, spec: { instance_id: '' } })
    expect((await stack.get(id)).status.public_ip).toBe('')
    expect(stack.host.leftovers()).toEqual([])
    const next = await stack.createReady(plain)
    expect((await attach(stack, pip.id, next.id)).spec.instance_id).toBe(next.id)
  })

  test('cannot be given to an instance that is being deleted or gone; it can be taken from one', async () => {
    await using stack = await start()
    const { id } = await stack.createReady(plain)
    const pip = await allocate(stack, { spec: { instance_id: id } })
    const spare = await allocate(stack)
    const release = stack.hold('remove')
    const deletion = await stack.delete(id, '?grace_seconds=0')
    const next = await stack.create(plain)
    const body = { spec: { instance_id: id } }
    const expectRefused = async () => {
      for (const [method, path] of [
        ['POST', '/v1/public-ips'],
        ['PATCH', `/v1/public-ips/${spare.id}`],
      ] as const) {
        expect(await stack.api(method, path, body)).toMatchObject({ status: 409, body: { code: 'invalid_state' } })
      }
    }
    await expectRefused()
    expect((await attach(stack, pip.id, next.id)).spec.instance_id).toBe(next.id)
    release()
    expect((await stack.ended(deletion)).status).toBe('succeeded')
    await expectRefused()
    expect((await list(stack, `?instance_id=${next.id}`)).map((each) => each.id)).toEqual([pip.id])
  })

  test('is refused for a version that is not the present one', async () => {
    await using stack = await start({ agent: false })
    const { id } = await stack.create(plain)
    const pip = await allocate(stack, { id: 'pip-a' })
    const before = await stack.api('GET', '/v1/public-ips/pip-a')
    await attach(stack, pip.id, id)
    const late = { 'if-match': String(before.headers.etag) }
    const body = { metadata: { labels: { a: 'b' } }, spec: { instance_id: '' } }
    expect(await stack.api('PATCH', '/v1/public-ips/pip-a', body, late)).toMatchObject({ status: 412 })
    expect((await list(stack))[0]?.spec.instance_id).toBe(id)
    const now = { 'if-match': String((await stack.api('GET', '/v1/public-ips/pip-a')).headers.etag) }
    const changed = await stack.api<PublicIp>('PATCH', '/v1/public-ips/pip-a', body, now)
    expect(changed.body).toMatchObject({ metadata: { labels: { a: 'b' }, generation: 3 }, spec: { instance_id: '' } })
    expect((await stack.get(id)).status.public_ip).toBe('')
  })
})
