import { request } from 'node:http'
import type { Accepted, InstanceCreated } from '@berth/contract/instances/instances.ts'
import type { Operation } from '@berth/contract/operations.ts'
import { Store } from '@berth/server/store/store.ts'
import { describe, expect, test } from 'vitest'
import { type Answer, type Stack, startStack, TestClock, testPublicKey, until } from '../stack.ts'

const body = { metadata: { labels: { a: '1', b: '2' } }, spec: { type: 'micro', image: 'micro' } }

const post = <T = InstanceCreated>(stack: Stack, key: string, path = '/v1/instances', sent: unknown = body) =>
  stack.api<T>('POST', path, sent, { 'idempotency-key': key })

/** What a caller may compare of two answers. */
const essence = ({ status, text, headers }: Answer<unknown>) => ({
  status,
  text,
  location: headers.location,
  type: headers['content-type'],
})

const isReplay = (answer: Answer<unknown>) => answer.headers['idempotency-replayed'] === 'true'

async function boundKeys(stack: Stack): Promise<string[]> {
  const store = await Store.open(stack.database)
  const rows = await store.read.selectFrom('idempotency_keys').select('key').orderBy('key').execute()
  await store.close()
  return rows.map((row) => row.key)
}

describe('the same request again', () => {
  test('gets the first answer byte for byte, and nothing is done twice', async () => {
    await using stack = await startStack({ agent: false })
    const first = await post(stack, 'k1')
    expect(first.status).toBe(201)
    expect(first.headers).not.toHaveProperty('idempotency-replayed')
    const again = await post(stack, 'k1')
    expect(again.headers['idempotency-replayed']).toBe('true')
    expect(essence(again)).toEqual(essence(first))
    expect(await stack.list()).toHaveLength(1)
  })

  test('is the first answer also when the instance has changed or is gone since', async () => {
    await using stack = await startStack()
    const first = await post(stack, 'k1')
    await stack.reach(first.body.id, 'ready')
    expect(essence(await post(stack, 'k1'))).toEqual(essence(first))
    await stack.ended(await stack.delete(first.body.id))
    const again = await post(stack, 'k1')
    expect(essence(again)).toEqual(essence(first))
    expect(isReplay(again)).toBe(true)
    expect(await stack.list()).toEqual([])
  })

  test('also after a restart of the server', async () => {
    await using stack = await startStack({ agent: false })
    const first = await post(stack, 'k1')
    await stack.restartServer()
    const again = await post(stack, 'k1')
    expect(isReplay(again)).toBe(true)
    expect(essence(again)).toEqual(essence(first))
    expect(await stack.list()).toHaveLength(1)
  })

  test('may spell the same JSON otherwise: other spaces, other order of the fields', async () => {
    await using stack = await startStack({ agent: false })
    const first = await post(stack, 'k1')
    const { spec } = body
    for (const spelt of [
      JSON.stringify(body, null, 4),
      JSON.stringify({ spec: { image: spec.image, type: spec.type }, metadata: { labels: { b: '2', a: '1' } } }),
    ]) {
      const again = await post(stack, 'k1', '/v1/instances', spelt)
      expect(essence(again)).toEqual(essence(first))
    }
    expect(await stack.list()).toHaveLength(1)
  })

  test('at the same moment, twice or fifty times, makes one instance and gives everyone its answer', async () => {
    await using stack = await startStack({ agent: false })
    for (const times of [2, 50]) {
      const answers = await Promise.all(Array.from({ length: times }, () => post(stack, `k${times}`)))
      expect(new Set(answers.map((answer) => JSON.stringify(essence(answer)))).size).toBe(1)
      expect(answers[0]?.status).toBe(201)
      expect(answers.filter((answer) => !isReplay(answer))).toHaveLength(1)
    }
    expect(await stack.list()).toHaveLength(2)
  })

  test('after a connection that was cut right after the request, it makes no second instance', async () => {
    await using stack = await startStack({ agent: false })
    for (let i = 0; i < 10; i++) {
      const key = `cut-${i}`
      await sendAndCut(stack, key)
      if (i % 2 === 0)
        await until(
          () => boundKeys(stack),
          (keys) => keys.includes(key),
        ) // committed, not answered
      const answer = await post(stack, key)
      expect(answer.status).toBe(201)
      if (i % 2 === 0) expect(isReplay(answer)).toBe(true)
      expect((await stack.get(answer.body.id)).id).toBe(answer.body.id)
    }
    expect(await stack.list()).toHaveLength(10)
  })

  test('a server that is stopped between the commit and the answer gives the answer later', async () => {
    await using stack = await startStack({ agent: false })
    // the agent's requests go on being answered while the connection of this one is gone
    await sendAndCut(stack, 'k1')
    await until(
      () => boundKeys(stack),
      (keys) => keys.includes('k1'),
    )
    const [made] = await stack.list()
    await stack.restartServer()
    const answer = await post(stack, 'k1')
    expect({ id: answer.body.id, replayed: isReplay(answer) }).toEqual({ id: made?.id, replayed: true })
  })
})

/** Send a create whole and drop the connection without reading an answer. */
function sendAndCut(stack: Stack, key: string): Promise<void> {
  const payload = JSON.stringify(body)
  const headers = {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(payload),
    'idempotency-key': key,
  }
  return new Promise((resolve) => {
    const outgoing = request({ host: '127.0.0.1', port: stack.port, method: 'POST', path: '/v1/instances', headers })
    outgoing.on('error', () => undefined)
    outgoing.on('close', () => resolve())
    outgoing.end(payload, () => outgoing.socket?.destroySoon())
  })
}

describe('another request with the same key', () => {
  test('is refused whatever differs, and does nothing', async () => {
    await using stack = await startStack({ agent: false })
    const first = await post(stack, 'k1')
    const others: [string, unknown][] = [
      ['/v1/instances', { ...body, metadata: { name: 'other' } }],
      ['/v1/instances', { ...body, on_capacity: 'queue' }],
      ['/v1/instances', { ...body, metadata: { labels: { a: '2', b: '1' } } }],
      ['/v1/vpcs', { spec: { cidr: '10.0.0.0/16' } }],
      [`/v1/instances/${first.body.id}/stop`, {}],
    ]
    for (const [path, sent] of others) {
      const answer = await stack.api('POST', path, sent, { 'idempotency-key': 'k1' })
      expect({ path, status: answer.status, code: answer.body.code }).toEqual({
        path,
        status: 422,
        code: 'idempotency_key_reused',
      })
    }
    expect(await stack.list()).toHaveLength(1)
    expect((await stack.get(first.body.id)).metadata.generation).toBe(1)
    expect(essence(await post(stack, 'k1'))).toEqual(essence(first))
  })

  test('at the same moment: one is done, the other refused', async () => {
    await using stack = await startStack({ agent: false })
    const answers = await Promise.all(
      ['a', 'b'].map((name) => post(stack, 'k1', '/v1/instances', { ...body, metadata: { name } })),
    )
    expect(answers.map((answer) => answer.status).sort()).toEqual([201, 422])
    expect(await stack.list()).toHaveLength(1)
  })
})

test('a refused request is not bound to its key', async () => {
  await using stack = await startStack({ agent: false })
  const vpc = { id: 'vpc-a', spec: { cidr: '10.0.0.0/16' } }
  const subnet = { id: 'subnet-a', spec: { vpc_id: 'vpc-a', cidr: '10.0.1.0/24' } }
  expect((await post(stack, 'k1', '/v1/subnets', subnet)).status).toBe(422) // no such VPC
  expect((await post(stack, 'k1', '/v1/subnets', { spec: 1 })).status).toBe(422)
  expect((await post(stack, 'k1', '/v1/subnets', '{')).status).toBe(400)
  expect(await boundKeys(stack)).toEqual([])
  expect((await post(stack, 'k2', '/v1/vpcs', vpc)).status).toBe(201)
  expect((await post(stack, 'k3', '/v1/vpcs', vpc)).status).toBe(409)
  expect((await post(stack, 'k1', '/v1/subnets', subnet)).status).toBe(201)
  expect(await boundKeys(stack)).toEqual(['k1', 'k2'])
})

test('a dry run is never bound', async () => {
  await using stack = await startStack({ agent: false })
  expect((await post(stack, 'k1', '/v1/instances?dry_run=true')).status).toBe(200)
  expect(await boundKeys(stack)).toEqual([])
  const made = await post(stack, 'k1')
  expect({ status: made.status, replayed: isReplay(made) }).toEqual({ status: 201, replayed: false })
})

test('a key is free again after 24 hours, not before, and old ones are removed', async () => {
  const clock = new TestClock()
  await using stack = await startStack({ agent: false, now: clock.now })
  const first = await post(stack, 'k1')
  clock.advance(24 * 60 * 60_000 - 60_000)
  expect(essence(await post(stack, 'k1'))).toEqual(essence(first))
  clock.advance(2 * 60_000)
  const second = await post(stack, 'k1')
  expect({ status: second.status, replayed: isReplay(second) }).toEqual({ status: 201, replayed: false })
  expect(second.body.id).not.toBe(first.body.id)
  clock.advance(25 * 60 * 60_000)
  await until(
    () => boundKeys(stack),
    (keys) => keys.length === 0,
  )
})

describe('every POST', () => {
  test('of the smaller resources gives the first answer again', async () => {
    const publicPools = [{ name: 'default', cidr: '203.0.113.0/29' }]
    await using stack = await startStack({ agent: false, publicPools })
    const sha256 = 'ab'.repeat(32)
    const posts: [string, object][] = [
      ['vpcs', { id: 'vpc-a', spec: { cidr: '10.0.0.0/16' } }],
      ['vpcs', { spec: { cidr: '10.1.0.0/16' } }],
      ['subnets', { spec: { vpc_id: 'vpc-a', cidr: '10.0.1.0/24' } }],
      ['security-groups', {}],
      ['ssh-keys', { spec: { public_key: testPublicKey } }],
      [
        'images',
        { id: 'base', spec: { source_url: 'https://a.example', sha256, min_disk_gb: 1, default_user: 'root' } },
      ],
      ['public-ips', {}],
    ]
    for (const [index, [plural, sent]] of posts.entries()) {
      const first = await post<{ id: string }>(stack, `k${index}`, `/v1/${plural}`, sent)
      expect({ plural, status: first.status, location: first.headers.location }).toEqual({
        plural,
        status: 201,
        location: `/v1/${plural}/${first.body.id}`,
      })
      const before = (await stack.api('GET', `/v1/${plural}`)).text
      const again = await post(stack, `k${index}`, `/v1/${plural}`, sent)
      expect({ plural, ...essence(again), replayed: isReplay(again) }).toEqual({
        plural,
        ...essence(first),
        replayed: true,
      })
      expect((await stack.api('GET', `/v1/${plural}`)).text).toBe(before)
    }
  })

  test('of an action gives the first operation again and acts once, whether its body is absent or empty', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const act = (key: string, action: string, sent?: unknown) =>
      stack.api<Accepted>('POST', `/v1/instances/${id}/${action}`, sent, { 'idempotency-key': key })
    const reboot = await act('r1', 'reboot', { grace_seconds: 1 })
    await stack.ended(reboot.body.operation_id)
    const boots = (await stack.get(id)).status.started_at
    const again = await act('r1', 'reboot', { grace_seconds: 1 })
    expect({ ...essence(again), replayed: isReplay(again) }).toEqual({ ...essence(reboot), replayed: true })
    expect((await stack.get(id)).status.started_at).toBe(boots)

    const stop = await act('s1', 'stop', '')
    await stack.ended(stop.body.operation_id)
    const start = await act('s2', 'start')
    await stack.ended(start.body.operation_id)
    // the retry of a stop that was overtaken by a start must not stop the instance again
    expect(essence(await act('s1', 'stop', {}))).toEqual(essence(stop))
    expect((await stack.reach(id, 'running')).status.state).toBe('running')
    const { body: list } = await stack.api<{ items: Operation[] }>('GET', `/v1/operations?resource_id=${id}`)
    expect(list.items.map((operation) => operation.type)).toEqual([
      'instance.start',
      'instance.stop',
      'instance.reboot',
      'instance.create',
    ])
  })

  test('an action of an instance that is gone is refused, and the retry of one that was accepted is not', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const path = `/v1/instances/${id}/stop`
    const stop = await post(stack, 'k1', path, {})
    await stack.ended(await stack.delete(id))
    expect((await post(stack, 'k2', path, {})).status).toBe(409)
    expect(essence(await post(stack, 'k1', path, {}))).toEqual(essence(stop))
  })
})

test('a key is 1 to 255 visible ASCII characters; anything else is 400 and does nothing', async () => {
  await using stack = await startStack({ agent: false })
  for (const key of ['', ' ', 'a b', 'x'.repeat(256), 'clé', 'a\tb', '\u00a0']) {
    const { status, body: problem } = await stack.api('POST', '/v1/instances', body, { 'idempotency-key': key })
    expect({ key, status, code: problem.code }).toEqual({ key, status: 400, code: 'invalid_header' })
  }
  expect(await stack.list()).toEqual([])
  for (const key of ['x', 'x'.repeat(255), '!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~']) {
    expect({ key, status: (await post(stack, key)).status }).toEqual({ key, status: 201 })
    expect({ key, replayed: isReplay(await post(stack, key)) }).toEqual({ key, replayed: true })
  }
})
