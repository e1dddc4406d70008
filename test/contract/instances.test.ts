import type { Accepted, Instance, InstanceCreated, InstanceList } from '@berth/contract/instances/instances.ts'
import type { Operation } from '@berth/contract/operations.ts'
import { describe, expect, test } from 'vitest'
import { startStack, TestClock, until } from '../stack.ts'

const timestamp = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/
const timestampMillis = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/
const instanceId = /^inst-[0-9a-hjkmnp-tv-z]{20}$/
const operationId = /^op-[0-9a-hjkmnp-tv-z]{20}$/
const hourMs = 3_600_000

/** The request of the contract, verbatim. */
const example = `{
  "metadata": { "name": "web-server-01", "labels": { "env": "production", "team": "platform" } },
  "spec": {
    "type": "cx31", "image": "ubuntu-22.04",
    "vcpus": 2, "memory_mb": 4096, "disk_gb": 80,
    "vpc_id": "vpc-abc123", "subnet_id": "subnet-def456",
    "security_groups": ["sg-web", "sg-ssh"], "ssh_key_ids": ["key-001"],
    "user_data": "IyEvYmluL2Jhc2gKYXB0IHVwZGF0ZQ=="
  }
}`

/** The names of all fields, nested, with what stands in arrays and labels left out. */
function shape(value: unknown): unknown {
  if (Array.isArray(value)) return value.length === 0 ? [] : [shape(value[0])]
  if (typeof value !== 'object' || value === null) return typeof value
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [key, key === 'labels' ? 'labels' : shape(inner)]),
  )
}

const metadataShape = { name: 'string', labels: 'labels', created_at: 'string', generation: 'number' }
const specShape = {
  type: 'string',
  image: 'string',
  vcpus: 'number',
  memory_mb: 'number',
  disk_gb: 'number',
  vpc_id: 'string',
  subnet_id: 'string',
  security_groups: ['string'],
  ssh_key_ids: ['string'],
  user_data: 'string',
  on_panic: 'string',
}
const contractStatusShape = { state: 'string', host_id: 'string', private_ip: 'string', public_ip: 'string' }
const timelineShape = {
  accepted_at: 'string',
  scheduled_at: 'string',
  image_ready_at: 'string',
  disk_ready_at: 'string',
  network_ready_at: 'string',
  vmm_started_at: 'string',
  kernel_at: 'string',
  guest_ready_at: 'string',
}

describe('create', () => {
  test('the example of the contract is accepted verbatim and answered with exactly its shape', async () => {
    await using stack = await startStack()
    await stack.ensureExamples()
    const { status, headers, body, text } = await stack.api<InstanceCreated>('POST', '/v1/instances', example)
    expect(status, text).toBe(201)
    expect(shape(body)).toEqual({
      id: 'string',
      metadata: metadataShape,
      spec: specShape,
      status: contractStatusShape,
      operation_id: 'string',
    })
    expect(body.id).toMatch(instanceId)
    expect(body.operation_id).toMatch(operationId)
    expect(headers.location).toBe(`/v1/instances/${body.id}`)
    expect(headers['content-type']).toMatch(/^application\/json/)
    expect(body.metadata).toEqual({
      name: 'web-server-01',
      labels: { env: 'production', team: 'platform' },
      created_at: expect.stringMatching(timestamp),
      generation: 1,
    })
    expect(body.spec).toEqual({ ...JSON.parse(example).spec, on_panic: 'restart' })
    expect(body.status).toEqual({ state: 'provisioning', host_id: '', private_ip: '', public_ip: '' })

    const running = await stack.reach(body.id, 'running')
    expect(running.status.private_ip).toMatch(/^10\.0\.1\.\d+$/)
    expect(running.spec).toEqual(body.spec)
  })

  test('every default is filled in', async () => {
    await using stack = await startStack({ agent: false })
    const { body } = await stack.api<InstanceCreated>('POST', '/v1/instances', {
      spec: { type: 'cx11', image: 'micro' },
    })
    expect(body.metadata).toEqual({
      name: body.id,
      labels: {},
      created_at: expect.stringMatching(timestamp),
      generation: 1,
    })
    expect(body.spec).toEqual({
      type: 'cx11',
      image: 'micro',
      vcpus: 1,
      memory_mb: 2048,
      disk_gb: 20,
      vpc_id: 'vpc-default',
      subnet_id: 'subnet-default',
      security_groups: ['sg-default'],
      ssh_key_ids: [],
      user_data: '',
      on_panic: 'restart',
    })
  })

  test('metadata may be empty, and no security group is one that was named', async () => {
    await using stack = await startStack({ agent: false })
    const created = await stack.create({ security_groups: [] }, {})
    expect(created.metadata.name).toBe(created.id)
    expect(created.spec.security_groups).toEqual([])
  })

  test('a size overrides the one of the type, each part for itself', async () => {
    await using stack = await startStack({ agent: false })
    const { spec } = await stack.create({ type: 'cx11', memory_mb: 100 })
    expect(spec).toMatchObject({ type: 'cx11', vcpus: 1, memory_mb: 100, disk_gb: 20 })
  })

  test('a subnet alone implies its VPC and a VPC alone picks a subnet of it', async () => {
    await using stack = await startStack({ agent: false })
    await stack.ensureExamples()
    const bySubnet = await stack.create({ subnet_id: 'subnet-def456' })
    const byVpc = await stack.create({ vpc_id: 'vpc-abc123' })
    for (const { spec } of [bySubnet, byVpc]) {
      expect(spec).toMatchObject({ vpc_id: 'vpc-abc123', subnet_id: 'subnet-def456' })
    }
  })

  test('names need not be unique', async () => {
    await using stack = await startStack({ agent: false })
    const first = await stack.create({}, { name: 'twin' })
    const second = await stack.create({}, { name: 'twin' })
    expect(first.id).not.toBe(second.id)
    expect((await stack.list('?name=twin')).map((instance) => instance.id)).toEqual([first.id, second.id])
  })
})

describe('read', () => {
  test('get and list give the same full document', async () => {
    await using stack = await startStack()
    const ready = await stack.createReady({ user_data: 'IyEvYmluL3NoCg==' }, { name: 'web', labels: { a: '' } })
    const one = await stack.api<Instance>('GET', `/v1/instances/${ready.id}`)
    const many = await stack.api<InstanceList>('GET', '/v1/instances')
    expect(one.status).toBe(200)
    expect(many.body).toEqual({ items: [one.body] })
    expect(shape(one.body)).toEqual({
      id: 'string',
      metadata: metadataShape,
      spec: { ...specShape, ssh_key_ids: [] },
      status: {
        ...contractStatusShape,
        reason: 'string',
        message: 'string',
        started_at: 'string',
        observed_generation: 'number',
        restarts: 'number',
        network: { netns: 'string', interface: 'string' },
        conditions: [{ type: 'string', status: 'string', reason: 'string', message: 'string', at: 'string' }],
        boot_timeline: timelineShape,
      },
      operation_id: 'string',
    })
    expect(one.body.status.conditions.map((condition) => [condition.type, condition.status])).toEqual([
      ['Scheduled', 'true'],
      ['ImageReady', 'true'],
      ['DiskReady', 'true'],
      ['NetworkReady', 'true'],
      ['Booted', 'true'],
      ['GuestReady', 'true'],
    ])
  })

  test('an instance that nothing is known of shows empty strings, never null', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create()
    const { status } = await stack.get(id)
    expect(status).toMatchObject({
      state: 'provisioning',
      host_id: '',
      private_ip: '',
      public_ip: '',
      started_at: '',
      network: { netns: '', interface: '' },
    })
    const { accepted_at: acceptedAt, ...later } = status.boot_timeline
    expect(acceptedAt).toMatch(timestampMillis)
    expect(new Set(Object.values(later))).toEqual(new Set(['']))
    expect(JSON.stringify(status)).not.toContain('null')
  })

  test('an empty list has items', async () => {
    await using stack = await startStack({ agent: false })
    expect((await stack.api('GET', '/v1/instances')).body).toEqual({ items: [] })
  })
})

describe('delete', () => {
  test('it is accepted, ends terminated, and the operation succeeds', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const { status, body } = await stack.api<Accepted>('DELETE', `/v1/instances/${id}`)
    expect(status).toBe(202)
    expect(body).toEqual({ operation_id: expect.stringMatching(operationId) })
    const gone = await stack.reach(id, 'terminated')
    expect(gone.status).toMatchObject({ state: 'terminated', reason: 'deleted', started_at: '' })
    expect(gone.operation_id).toBe(body.operation_id)
    const operation = await stack.operation(body.operation_id)
    expect(operation).toMatchObject({ type: 'instance.delete', resource_id: id, status: 'succeeded', error: null })
    expect(operation.steps.map((step) => [step.name, step.status])).toEqual([
      ['shutdown', 'succeeded'],
      ['clean-up', 'succeeded'],
    ])
  })

  test('every later delete is answered with the first operation', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const first = await stack.delete(id)
    expect(await stack.delete(id)).toBe(first)
    await stack.reach(id, 'terminated')
    expect(await stack.delete(id, '?grace_seconds=0')).toBe(first)
    expect((await stack.get(id)).operation_id).toBe(first)
  })

  test('one that was never placed is terminated in the answer', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create()
    const operation = await stack.operation(await stack.delete(id))
    expect(operation.status).toBe('succeeded')
    expect((await stack.get(id)).status.state).toBe('terminated')
  })

  test('a terminated instance is left out of lists unless asked for, and is gone after its hour', async () => {
    const clock = new TestClock()
    await using stack = await startStack({ now: clock.now, agent: false })
    const { id, operation_id: created } = await stack.create({}, { name: 'gone' })
    const operation = await stack.delete(id)
    expect(await stack.list()).toEqual([])
    expect(await stack.list('?name=gone')).toEqual([])
    expect((await stack.list('?state=terminated')).map((instance) => instance.id)).toEqual([id])

    clock.advance(hourMs - 60_000)
    expect((await stack.get(id)).status.state).toBe('terminated')
    clock.advance(120_000)
    const answer = await until(
      () => stack.api('GET', `/v1/instances/${id}`),
      ({ status }) => status !== 200,
    )
    expect(answer).toMatchObject({ status: 404, body: { code: 'not_found' } })
    expect(await stack.list('?state=terminated')).toEqual([])
    expect((await stack.api('DELETE', `/v1/instances/${id}`)).status).toBe(404)
    // what became of it stays readable
    expect((await stack.operation(operation)).status).toBe('succeeded')
    expect((await stack.operation(created)).status).toBe('cancelled')
  })

  test('how long a tombstone stays is a setting', async () => {
    const clock = new TestClock()
    await using stack = await startStack({ now: clock.now, agent: false, settings: { tombstoneMs: 24 * hourMs } })
    const { id } = await stack.create()
    await stack.delete(id)
    clock.advance(23 * hourMs)
    await stack.restartServer() // a start looks at once
    expect((await stack.get(id)).status.state).toBe('terminated')
  })

  test('an instance that does not exist cannot be deleted', async () => {
    await using stack = await startStack({ agent: false })
    const { status, body } = await stack.api('DELETE', '/v1/instances/inst-00000000000000000000')
    expect({ status, code: body.code }).toEqual({ status: 404, code: 'not_found' })
  })
})

describe('operations', () => {
  test('a create shows its steps, with times and attempts', async () => {
    await using stack = await startStack()
    const { id, operation_id: op } = await stack.create()
    const { status, body } = await stack.api<Operation>('GET', `/v1/operations/${op}?wait=10`)
    expect(status).toBe(200)
    expect(body).toEqual({
      id: op,
      type: 'instance.create',
      resource_type: 'instance',
      resource_id: id,
      status: 'succeeded',
      steps: ['schedule', 'image', 'disk', 'network', 'boot'].map((name) => ({
        name,
        status: 'succeeded',
        attempt: 1,
        started_at: expect.stringMatching(timestampMillis),
        finished_at: expect.stringMatching(timestampMillis),
        error: null,
      })),
      error: null,
      created_at: expect.stringMatching(timestamp),
      finished_at: expect.stringMatching(timestamp),
    })
    // success and running CPUs are stored together
    expect((await stack.get(id)).status.state).toBe('running')
  })

  test('a wait is answered at its end with what there is', async () => {
    await using stack = await startStack({ agent: false })
    const { operation_id: op } = await stack.create()
    expect((await stack.operation(op, 1)).status).toBe('pending')
  })

  test('they are listed newest first and by resource', async () => {
    await using stack = await startStack({ agent: false })
    const a = await stack.create()
    const b = await stack.create()
    const deleted = await stack.delete(a.id)
    const all = await stack.api<{ items: Operation[] }>('GET', '/v1/operations')
    expect(all.body.items.map((each) => each.id)).toEqual([deleted, b.operation_id, a.operation_id])
    const ofA = await stack.api<{ items: Operation[] }>('GET', `/v1/operations?resource_id=${a.id}`)
    expect(ofA.body.items.map((each) => each.id)).toEqual([deleted, a.operation_id])
  })

  test('an ended operation is kept for its time and then removed', async () => {
    const clock = new TestClock()
    await using stack = await startStack({ now: clock.now, agent: false })
    const { id } = await stack.create()
    const op = await stack.delete(id)
    clock.advance(29 * 24 * hourMs)
    expect((await stack.operation(op)).status).toBe('succeeded')
    clock.advance(2 * 24 * hourMs)
    const answer = await until(
      () => stack.api('GET', `/v1/operations/${op}`),
      ({ status }) => status !== 200,
    )
    expect(answer).toMatchObject({ status: 404, body: { code: 'not_found' } })
  })
})
