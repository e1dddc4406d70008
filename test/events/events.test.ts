import type { Event } from '@berth/contract/events.ts'
import type { Vpc } from '@berth/contract/networks/vpcs.ts'
import { Store } from '@berth/server/store/store.ts'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type EventStream, openEvents } from '../event-stream.ts'
import { type Stack, startStack, TestClock, testPublicKey, until } from '../stack.ts'

const imageSpec = {
  source_url: 'https://images.example/base.qcow2',
  sha256: 'ab'.repeat(32),
  min_disk_gb: 1,
  default_user: 'root',
}

const dayMs = 24 * 60 * 60_000

const sequences = (events: readonly { data: Event }[]) => events.map((event) => event.data.sequence)

/** `type resource` of each event, those of operations and hosts left out. */
const shown = (stream: EventStream) =>
  stream.events
    .filter(({ event }) => !/^(operation|host)\./.test(event))
    .map(({ event, data }) => `${event} ${data.resource_id}`)

async function createVpc(stack: Stack, id: string): Promise<Vpc> {
  const { status, body, text } = await stack.api<Vpc>('POST', '/v1/vpcs', { id, spec: { cidr: '10.0.0.0/16' } })
  if (status !== 201) throw new Error(text)
  return body
}

/** Every event there is, read from the database behind the server's back. */
async function stored(stack: Stack): Promise<{ sequence: number; type: string; resource_id: string }[]> {
  const store = await Store.open(stack.database)
  const rows = await store.read.selectFrom('events').selectAll().orderBy('sequence').execute()
  await store.close()
  return rows
}

/** A stream from the oldest event on, once it holds everything that is stored. */
async function readAll(stack: Stack, query = '?after=0'): Promise<EventStream> {
  const last = (await stored(stack)).at(-1)?.sequence ?? 0
  const stream = await openEvents(stack.port, query)
  await stream.until(() => (stream.lastId() ?? 0) >= last)
  stream.drop()
  return stream
}

describe('what is told', () => {
  test('every change of every resource is an event, in the order of the commits', async () => {
    const publicPools = [{ name: 'default', cidr: '203.0.113.0/29' }]
    await using stack = await startStack({ agent: false, publicPools })
    const stream = await openEvents(stack.port)
    const steps: [string, string, object | undefined][] = [
      ['POST', '/v1/vpcs', { id: 'vpc-a', spec: { cidr: '10.0.0.0/16' } }],
      ['POST', '/v1/subnets', { id: 'subnet-a', spec: { vpc_id: 'vpc-a', cidr: '10.0.1.0/24' } }],
      ['POST', '/v1/security-groups', { id: 'sg-a' }],
      ['POST', '/v1/ssh-keys', { id: 'key-a', spec: { public_key: testPublicKey } }],
      ['POST', '/v1/images', { id: 'base', spec: imageSpec }],
      ['POST', '/v1/public-ips', { id: 'pip-a' }],
      ['PATCH', '/v1/vpcs/vpc-a', { metadata: { name: 'renamed' } }],
      ['PATCH', '/v1/subnets/subnet-a', { metadata: { labels: { a: 'b' } } }],
      ['PATCH', '/v1/security-groups/sg-a', { spec: { description: 'changed' } }],
      ['PATCH', '/v1/ssh-keys/key-a', { metadata: { name: 'renamed' } }],
      ['PATCH', '/v1/images/base', { metadata: { labels: { a: 'b' } } }],
      ['DELETE', '/v1/images/base', undefined],
      ['PATCH', '/v1/public-ips/pip-a', { metadata: { name: 'renamed' } }],
      ['DELETE', '/v1/public-ips/pip-a', undefined],
      ['DELETE', '/v1/ssh-keys/key-a', undefined],
      ['DELETE', '/v1/security-groups/sg-a', undefined],
      ['DELETE', '/v1/subnets/subnet-a', undefined],
      ['DELETE', '/v1/vpcs/vpc-a', undefined],
    ]
    for (const [method, path, body] of steps) {
      const { status, text } = await stack.api(method, path, body)
      expect({ method, path, status, text: status >= 300 ? text : '' }).toMatchObject({ text: '' })
    }
    await stack.api('PATCH', `/v1/hosts/${stack.hostId}`, { spec: { schedulable: false } })
    await stream.until(() => stream.events.some(({ event }) => event === 'host.updated'))
    expect(stream.events.map(({ event, data }) => `${event} ${data.resource_id}`)).toEqual([
      'vpc.created vpc-a',
      'subnet.created subnet-a',
      'security_group.created sg-a',
      'ssh_key.created key-a',
      'image.created base',
      'public_ip.created pip-a',
      'vpc.updated vpc-a',
      'subnet.updated subnet-a',
      'security_group.updated sg-a',
      'ssh_key.updated key-a',
      'image.updated base',
      'image.deleted base',
      'public_ip.updated pip-a',
      'public_ip.deleted pip-a',
      'ssh_key.deleted key-a',
      'security_group.deleted sg-a',
      'subnet.deleted subnet-a',
      'vpc.deleted vpc-a',
      `host.updated ${stack.hostId}`,
    ])
    stream.drop()
  })

  test('the life of an instance can be followed to the removal of its tombstone', async () => {
    const clock = new TestClock()
    await using stack = await startStack({ now: clock.now })
    const stream = await openEvents(stack.port)
    const { id } = await stack.createReady()
    await stack.ended(await stack.act(id, 'stop'))
    await stack.api('PATCH', `/v1/instances/${id}`, { metadata: { name: 'renamed' } })
    await stack.ended(await stack.delete(id))
    clock.advance(2 * 60 * 60_000)
    await stream.until(() => stream.events.some(({ event }) => event === 'instance.deleted'))
    const of = stream.events.filter(({ data }) => data.resource_id === id)
    expect(of[0]?.event).toBe('instance.created')
    expect(of.at(-1)?.event).toBe('instance.deleted')
    expect(of.filter(({ event }) => event === 'instance.created')).toHaveLength(1)
    const states = of.map(({ data }) => data.detail.state).filter((state) => state !== undefined)
    expect(states.filter((state, i) => state !== states[i - 1])).toEqual(
      expect.arrayContaining(['provisioning', 'running', 'stopped', 'terminated']),
    )
    expect(states.at(-1)).toBe('terminated')
    const operations = stream.events.filter(({ data }) => data.detail.resource_id === id)
    expect(operations.filter(({ event }) => event === 'operation.created').map(({ data }) => data.detail.type)).toEqual(
      ['instance.create', 'instance.stop', 'instance.delete'],
    )
    expect(operations.filter(({ data }) => data.detail.status === 'succeeded')).toHaveLength(3)
    stream.drop()
  })

  test('an operation that is no longer kept has an event that says so', async () => {
    const clock = new TestClock()
    await using stack = await startStack({ now: clock.now })
    const { id, operation_id: operationId } = await stack.create()
    await stack.ended(operationId)
    await stack.ended(await stack.delete(id))
    const stream = await openEvents(stack.port)
    clock.advance(31 * dayMs)
    await stream.until(() =>
      stream.events.some(({ event, data }) => event === 'operation.deleted' && data.resource_id === operationId),
    )
    expect((await stack.api('GET', `/v1/operations/${operationId}`)).status).toBe(404)
    stream.drop()
  })

  test('a host has an event when it connects and when what it offers changes, none for a report alone', async () => {
    await using stack = await startStack({ agent: false })
    const stream = await openEvents(stack.port)
    const report = (sequence: number, vcpus: number) =>
      stack.agentApi('POST', '/v1/agent/observed', {
        agent_session: 1,
        sequence,
        revision: 0,
        agent_version: 'test',
        hostname: 'test',
        hypervisor: 'simulated',
        accelerator: 'none',
        accelerator_reason: '',
        capacity: { vcpus, memory_mb: 1024, disk_gb: 10 },
        images: [],
        instances: [],
      })
    for (const [sequence, vcpus] of [
      [1, 4],
      [2, 4],
      [3, 8],
      [4, 8],
    ] as const) {
      expect((await report(sequence, vcpus)).status).toBe(204)
    }
    await createVpc(stack, 'vpc-after')
    await stream.until(() => shown(stream).includes('vpc.created vpc-after'))
    expect(stream.events.map(({ event }) => event)).toEqual(['host.updated', 'host.updated', 'vpc.created'])
    stream.drop()
  })

  test('what was refused or only tried has no event', async () => {
    await using stack = await startStack({ agent: false })
    const stream = await openEvents(stack.port)
    await createVpc(stack, 'vpc-a')
    await stack.api('POST', '/v1/vpcs', { id: 'vpc-a', spec: { cidr: '10.0.0.0/16' } })
    await stack.api('POST', '/v1/instances', { spec: { type: 'micro', image: 'none' } })
    await stack.api('POST', '/v1/instances?dry_run=true', { spec: { type: 'micro', image: 'micro' } })
    await stack.api('DELETE', '/v1/vpcs/vpc-none')
    await createVpc(stack, 'vpc-b')
    await stream.until(() => shown(stream).includes('vpc.created vpc-b'))
    expect(shown(stream)).toEqual(['vpc.created vpc-a', 'vpc.created vpc-b'])
    stream.drop()
  })

  test('resource_id narrows the stream to one resource', async () => {
    await using stack = await startStack({ agent: false })
    await createVpc(stack, 'vpc-a')
    const stream = await openEvents(stack.port, '?after=0&resource_id=vpc-a')
    await createVpc(stack, 'vpc-b')
    await stack.api('PATCH', '/v1/vpcs/vpc-a', { metadata: { name: 'renamed' } })
    await stream.until(() => shown(stream).includes('vpc.updated vpc-a'))
    expect(shown(stream)).toEqual(['vpc.created vpc-a', 'vpc.updated vpc-a'])
    stream.drop()
  })
})

describe('where a stream begins', () => {
  test('without a number with the next change, and it says at once where that is', async () => {
    await using stack = await startStack({ agent: false })
    await createVpc(stack, 'vpc-a')
    const last = (await stored(stack)).at(-1)?.sequence
    const stream = await openEvents(stack.port)
    // a client that is cut off before the first event must have a number to go on behind
    await stream.until(() => stream.lastId() !== null)
    expect(stream.lastId()).toBe(last)
    expect(stream.events).toEqual([])
    stream.drop()
    await createVpc(stack, 'vpc-between')
    const next = await openEvents(stack.port, '', { 'last-event-id': String(last) })
    await next.until(() => next.events.length > 0)
    expect(shown(next)).toEqual(['vpc.created vpc-between'])
    next.drop()
  })

  test('with after=0 at the oldest event that is kept', async () => {
    await using stack = await startStack({ agent: false })
    await createVpc(stack, 'vpc-a')
    const stream = await readAll(stack)
    expect(stream.events.map(({ data }) => data.sequence)).toEqual((await stored(stack)).map((row) => row.sequence))
  })

  test('Last-Event-ID goes before after, and the numbers go on after a restart of the server', async () => {
    await using stack = await startStack({ agent: false })
    await createVpc(stack, 'vpc-a')
    await createVpc(stack, 'vpc-b')
    const all = await stored(stack)
    const behindA = all.find((row) => row.resource_id === 'vpc-a')?.sequence ?? 0
    await stack.restartServer()
    await createVpc(stack, 'vpc-c')
    const stream = await openEvents(stack.port, '?after=0', { 'last-event-id': String(behindA) })
    await stream.until(() => shown(stream).length === 2)
    expect(shown(stream)).toEqual(['vpc.created vpc-b', 'vpc.created vpc-c'])
    stream.drop()
  })

  test('a number that is not one is 400', async () => {
    await using stack = await startStack({ agent: false })
    for (const id of ['x', '-1', '1.5', '', ' ', '1e3', '0x10', '9'.repeat(16), '1, 2']) {
      const { status, body } = await stack.api('GET', '/v1/events', undefined, { 'last-event-id': id })
      expect({ id, status, code: body.code }).toEqual({ id, status: 400, code: 'invalid_header' })
    }
    for (const after of ['x', '-1', '1.5', '', '9007199254740993', '1&after=2']) {
      const { status, body } = await stack.api('GET', `/v1/events?after=${after}`)
      expect({ after, status, code: body.code }).toEqual({ after, status: 400, code: 'invalid_query' })
    }
  })

  test('events that are gone, or are not there yet, are said with a reset that can be gone on from', async () => {
    const clock = new TestClock()
    await using stack = await startStack({ agent: false, now: clock.now })
    for (const id of ['vpc-a', 'vpc-b', 'vpc-c']) await createVpc(stack, id)
    const before = await stored(stack)
    clock.advance(dayMs + 1000)
    const left = await until(
      () => stored(stack),
      (rows) => rows.length === 1,
    )
    expect(left.at(-1)?.resource_id, 'the newest is never removed').toBe('vpc-c')
    const last = left[0]?.sequence ?? 0
    for (const after of [before[0]?.sequence ?? 0, last + 1000]) {
      const stream = await openEvents(stack.port, '', { 'last-event-id': String(after) })
      await stream.until(() => stream.events.length > 0)
      expect({ after, first: stream.events[0] }).toEqual({
        after,
        first: { id: last, event: 'reset', data: { sequence: last } },
      })
      stream.drop()
    }
    for (const after of [last - 1, last]) {
      const stream = await openEvents(stack.port, '', { 'last-event-id': String(after) })
      await createVpc(stack, `vpc-d${after}`)
      await stream.until(() => shown(stream).includes(`vpc.created vpc-d${after}`))
      expect(stream.events.map(({ event }) => event)).not.toContain('reset')
      stream.drop()
    }
  })

  test('HEAD is answered at once, as GET would begin', async () => {
    await using stack = await startStack({ agent: false })
    const { status, headers, text } = await stack.api('HEAD', '/v1/events')
    expect({ status, type: headers['content-type'], text }).toEqual({
      status: 200,
      type: 'text/event-stream; charset=utf-8',
      text: '',
    })
  })
})

describe('what a stream survives', () => {
  test('an idle stream gets a comment, and learns how far it is when its filter lets nothing through', async () => {
    await using stack = await startStack({ agent: false, settings: { eventKeepAliveMs: 10 } })
    const stream = await openEvents(stack.port, '?resource_id=vpc-none')
    await createVpc(stack, 'vpc-a')
    const last = (await stored(stack)).at(-1)?.sequence
    await stream.until(() => stream.comments.includes('keep-alive') && stream.lastId() === last)
    expect(stream.events).toEqual([])
    stream.drop()
  })

  test('a client that reads nothing is cut off, others are not, and it can go on where it was', async () => {
    await using stack = await startStack({ agent: false, settings: { eventStallMs: 1000 } })
    await stack.stopServer()
    const store = await Store.open(stack.database)
    const filler = 'x'.repeat(4000)
    for (let page = 0; page < 20; page++) {
      await store.write(async (tx) => {
        for (let i = 0; i < 500; i++) {
          tx.changed({ resource: 'vpc', id: `vpc-${page}-${i}`, action: 'created', detail: { filler } })
        }
      })
    }
    await store.close()
    await stack.startServer()
    const expected = (await stored(stack)).map((row) => row.sequence)

    const lazy = await openEvents(stack.port, '?after=0')
    lazy.pause()
    expect(lazy.held()).toBe(true)
    const other = await openEvents(stack.port, '?after=0')
    await other.until(() => other.events.length === expected.length)
    expect(sequences(other.events)).toEqual(expected)
    other.drop()

    await until(
      () => lazy.held(),
      (held) => !held,
    )
    lazy.resume()
    await lazy.ended
    expect(lazy.events.length).toBeLessThan(expected.length)
    const rest = await openEvents(stack.port, '', { 'last-event-id': String(lazy.lastId() ?? 0) })
    await rest.until(() => lazy.events.length + rest.events.length >= expected.length)
    expect(sequences([...lazy.events, ...rest.events])).toEqual(expected)
    rest.drop()
  })

  test('clients that are cut off at any moment, with server restarts between, miss nothing and see nothing twice', async () => {
    await using stack = await startStack({ agent: false })
    const round = fc.record({
      writes: fc.integer({ min: 1, max: 12 }),
      dropAfter: fc.integer({ min: 0, max: 12 }),
      restart: fc.boolean(),
    })
    let count = 0
    await fc.assert(
      fc.asyncProperty(fc.array(round, { minLength: 1, maxLength: 4 }), async (rounds) => {
        const seen: number[] = []
        const first = (await stored(stack)).at(-1)?.sequence ?? 0
        let position = first
        const next = () => openEvents(stack.port, '?after=0', position === 0 ? {} : { 'last-event-id': `${position}` })
        for (const { writes, dropAfter, restart } of rounds) {
          const stream = await next()
          const writing = Promise.all(Array.from({ length: writes }, () => createVpc(stack, `vpc-n${count++}`)))
          await stream.until(() => stream.events.length >= Math.min(dropAfter, writes))
          stream.drop()
          await stream.ended
          await writing
          seen.push(...sequences(stream.events))
          position = stream.lastId() ?? position
          if (restart) await stack.restartServer()
        }
        const expected = (await stored(stack)).map((row) => row.sequence).filter((sequence) => sequence > first)
        const stream = await next()
        await stream.until(() => seen.length + stream.events.length >= expected.length)
        stream.drop()
        seen.push(...sequences(stream.events))
        expect(seen).toEqual(expected)
      }),
      { numRuns: 8 },
    )
  })
})
