import type { Desired } from '@berth/contract/hosts/agent-protocol.ts'
import type { Instance } from '@berth/contract/instances/instances.ts'
import type { SshKey } from '@berth/contract/instances/ssh-keys.ts'
import { describe, expect, test } from 'vitest'
import { openEvents } from '../event-stream.ts'
import { type Answer, type RequestHeaders, type Stack, startStack, testPublicKey, until } from '../stack.ts'

type Patched = Answer<Instance>

const patch = (stack: Stack, id: string, body: unknown, headers: RequestHeaders = {}): Promise<Patched> =>
  stack.api<Instance>('PATCH', `/v1/instances/${id}`, body, headers)

const etagOf = async (stack: Stack, path: string): Promise<string> =>
  (await stack.api('GET', path)).headers.etag ?? 'no ETag'

const manyLabels = (from: number, count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`key-${from + i}`, 'x']))

describe('labels and name', () => {
  test('a patch sets the labels it names, removes those that are null and keeps the rest', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create({}, { name: 'web', labels: { keep: '1', change: '1', drop: '1' } })
    const answer = await patch(stack, id, { metadata: { labels: { change: '2', drop: null, add: '', none: null } } })
    expect(answer.status).toBe(200)
    expect(answer.body.metadata).toMatchObject({ name: 'web', labels: { keep: '1', change: '2', add: '' } })
    expect(Object.keys(answer.body.metadata.labels).sort()).toEqual(['add', 'change', 'keep'])
    expect((await stack.get(id)).metadata).toEqual(answer.body.metadata)
    for (const [selector, found] of [
      ['add', 1],
      ['add=', 1],
      ['change=2', 1],
      ['change=1', 0],
      ['drop', 0],
      ['keep=1', 1],
    ] as const) {
      expect({ selector, found: (await stack.list(`?label_selector=${selector}`)).length }).toEqual({ selector, found })
    }
  })

  test('a new name is found at once and the old one is not; both are changes of intent', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create({}, { name: 'before' })
    const { body } = await patch(stack, id, { metadata: { name: 'after' } })
    expect(body.metadata).toMatchObject({ name: 'after', generation: 2 })
    expect(await stack.list('?name=before')).toEqual([])
    expect((await stack.list('?name=after')).map((instance) => instance.id)).toEqual([id])
  })

  test('a merge may reach 64 labels, not more, and a refused one changes nothing', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create({}, { labels: manyLabels(0, 60) })
    const etag = await etagOf(stack, `/v1/instances/${id}`)
    const over = await patch(stack, id, { metadata: { name: 'changed', labels: manyLabels(60, 5) } })
    expect(over).toMatchObject({ status: 422, body: { errors: [{ pointer: '/metadata/labels' }] } })
    expect(await etagOf(stack, `/v1/instances/${id}`)).toBe(etag)
    expect((await stack.get(id)).metadata.name).toBe(id)
    const exchange = { ...manyLabels(60, 5), 'key-0': null }
    const exact = await patch(stack, id, { metadata: { labels: exchange } })
    expect(Object.keys(exact.body.metadata.labels)).toHaveLength(64)
  })

  test('labels that JavaScript has other uses for are labels like all others', async () => {
    await using stack = await startStack({ agent: false })
    const labels = '{"__proto__":"p","constructor":"c","toString":"t","hasOwnProperty":"h"}'
    const created = await stack.api<Instance>(
      'POST',
      '/v1/instances',
      `{"metadata":{"labels":${labels}},"spec":{"type":"micro","image":"micro"}}`,
    )
    expect(created.status).toBe(201)
    expect(created.text).toContain(`"labels":${labels}`)
    for (const selector of ['__proto__=p', 'constructor=c', 'toString', '!valueOf']) {
      expect({ selector, found: (await stack.list(`?label_selector=${selector}`)).length }).toEqual({
        selector,
        found: 1,
      })
    }
    const patched = await patch(stack, created.body.id, '{"metadata":{"labels":{"__proto__":null,"valueOf":"v"}}}')
    expect(Object.entries(patched.body.metadata.labels)).toEqual([
      ['constructor', 'c'],
      ['toString', 't'],
      ['hasOwnProperty', 'h'],
      ['valueOf', 'v'],
    ])
  })

  test('what a patch may not say is refused where it stands, and changes nothing', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create()
    const before = await stack.get(id)
    for (const [body, pointer] of [
      [{ metadata: { name: null } }, '/metadata/name'],
      [{ metadata: { name: 'good', labels: null } }, '/metadata/labels'],
      [{ metadata: { name: 'good', labels: { 'no good': 'x' } } }, '/metadata/labels/no good'],
      [{ metadata: { labels: { good: 'x', a: 1 } } }, '/metadata/labels/a'],
      [{ spec: { type: 'cx11' } }, '/spec/type'],
      [{ spec: { security_groups: null } }, '/spec/security_groups'],
      [{ metadata: { name: 'good' }, spec: { security_groups: ['sg-none'] } }, '/spec/security_groups/0'],
      [{ status: {} }, '/status'],
      [[], ''],
      ['null', ''],
    ] as const) {
      const { status, body: problem } = await stack.api('PATCH', `/v1/instances/${id}`, body)
      expect({ body, status, pointers: problem.errors.map((error) => error.pointer) }).toEqual({
        body,
        status: 422,
        pointers: expect.arrayContaining([pointer]),
      })
      expect(await stack.get(id)).toEqual(before)
    }
  })
})

describe('the name', () => {
  test('a new one is told to the host, which reports it done while the machine runs on', async () => {
    await using stack = await startStack()
    const { id, metadata, status } = await stack.createReady({}, { name: 'before' })
    const { body } = await patch(stack, id, { metadata: { name: 'after' } })
    expect(body.metadata.generation).toBe(metadata.generation + 1)
    const desired = await stack.agentApi<Desired>('GET', '/v1/agent/desired?since=0')
    expect(desired.body.instances.map(({ hostname, generation }) => ({ hostname, generation }))).toEqual([
      { hostname: 'after', generation: body.metadata.generation },
    ])
    const caughtUp = await until(
      () => stack.get(id),
      (now) => now.status.observed_generation === body.metadata.generation,
    )
    expect(caughtUp.status.started_at).toBe(status.started_at)
    const labelled = await patch(stack, id, { metadata: { labels: { a: 'b' } } })
    expect(labelled.body.metadata.generation).toBe(body.metadata.generation)
  })
})

describe('security groups', () => {
  test('new ones raise the generation, and the host catches up with it', async () => {
    await using stack = await startStack()
    await stack.ensureExamples()
    const { id, metadata } = await stack.createReady()
    const { body } = await patch(stack, id, { spec: { security_groups: ['sg-web', 'sg-ssh'] } })
    expect(body.spec.security_groups).toEqual(['sg-web', 'sg-ssh'])
    expect(body.metadata.generation).toBe(metadata.generation + 1)
    const caughtUp = await until(
      () => stack.get(id),
      (now) => now.status.observed_generation === body.metadata.generation,
    )
    expect(caughtUp.status.started_at).not.toBe('')
    const groups = await stack.api<{ status: { instances: number } }>('GET', '/v1/security-groups/sg-web')
    expect(groups.body.status.instances).toBe(1)
    const none = await patch(stack, id, { spec: { security_groups: [] } })
    expect(none.body.spec.security_groups).toEqual([])
    expect((await stack.api('DELETE', '/v1/security-groups/sg-web')).status).toBe(204)
  })

  test('the guest does not notice: it neither stops nor boots anew', async () => {
    await using stack = await startStack()
    await stack.ensureExamples()
    const before = await stack.createReady()
    await patch(stack, before.id, { spec: { security_groups: ['sg-web'] } })
    const after = await stack.reach(before.id, 'ready')
    expect(after.status.started_at).toBe(before.status.started_at)
    expect(after.status.restarts).toBe(0)
    expect(after.operation_id).toBe(before.operation_id)
  })

  test('may be changed in every state; the operation under way goes on, and the host catches up', async () => {
    await using stack = await startStack()
    await stack.ensureExamples()
    const caughtUp = (id: string) =>
      until(
        () => stack.get(id),
        ({ metadata, status }) => status.observed_generation === metadata.generation,
      )
    const groups = (name: string) => ({ spec: { security_groups: [`sg-${name}`] } })
    const release = stack.hold('image')
    const { id, operation_id: creating } = await stack.create()
    await stack.stepRuns(creating, 'image')
    expect((await patch(stack, id, groups('web'))).body.status.state).toBe('provisioning')
    release()
    expect((await stack.ended(creating)).status).toBe('succeeded')
    expect((await caughtUp(id)).status.state).toBe('running')
    await stack.ended(await stack.act(id, 'stop'))
    expect((await patch(stack, id, groups('ssh'))).body.status.state).toBe('stopped')
    expect((await caughtUp(id)).status.state).toBe('stopped')
    expect((await stack.ended(await stack.act(id, 'start'))).status).toBe('succeeded')
    expect((await stack.get(id)).spec.security_groups).toEqual(['sg-ssh'])
  })

  test('changed while a guest powers itself off, do not boot it again', async () => {
    await using stack = await startStack()
    await stack.ensureExamples()
    const { id } = await stack.createReady()
    await stack.stopAgent()
    stack.host.vmmOf(id)?.guestPowersOff()
    for (const group of ['sg-web', 'sg-ssh'])
      expect((await patch(stack, id, { spec: { security_groups: [group] } })).status).toBe(200)
    stack.startAgent()
    const stopped = await stack.reach(id, 'stopped')
    expect(stopped.status.reason).toBe('guest_shutdown')
    expect(stack.host.vmmOf(id)).toBe(null)
  })

  test('the default group may be named before anything has made it', async () => {
    await using stack = await startStack({ agent: false })
    await stack.ensureExamples()
    const { id } = await stack.create({ security_groups: ['sg-web'] })
    const { status, body } = await patch(stack, id, { spec: { security_groups: ['sg-default'] } })
    expect({ status, groups: body.spec.security_groups }).toEqual({ status: 200, groups: ['sg-default'] })
  })
})

describe('versions', () => {
  test('every GET, and the answer to a PATCH, has the ETag of the version', async () => {
    await using stack = await startStack({ agent: false })
    await stack.ensureExamples()
    const { id } = await stack.create()
    for (const path of [
      `/v1/instances/${id}`,
      '/v1/vpcs/vpc-abc123',
      '/v1/subnets/subnet-def456',
      '/v1/security-groups/sg-web',
      '/v1/ssh-keys/key-001',
      `/v1/hosts/${stack.hostId}`,
    ]) {
      const before = await etagOf(stack, path)
      expect({ path, before }).toEqual({ path, before: expect.stringMatching(/^"[^"]+"$/) })
      const changed = await stack.api('PATCH', path, { metadata: { name: 'changed' } }, { 'if-match': before })
      expect({ path, status: changed.status, etag: await etagOf(stack, path) }).toEqual({
        path,
        status: 200,
        etag: changed.headers.etag,
      })
      expect(changed.headers.etag).not.toBe(before)
      const stale = await stack.api('PATCH', path, { metadata: { name: 'lost' } }, { 'if-match': before })
      expect({ path, status: stale.status, code: stale.body.code }).toEqual({
        path,
        status: 412,
        code: 'precondition_failed',
      })
      expect(await etagOf(stack, path)).toBe(changed.headers.etag)
      expect((await stack.api<Instance>('GET', path)).body.metadata.name).toBe('changed')
    }
  })

  test('a resource that is made again under an id is no version of the one before', async () => {
    await using stack = await startStack({ agent: false, publicPools: [{ name: 'default', cidr: '198.51.100.0/24' }] })
    await stack.ensureExamples()
    const key = (await stack.api<SshKey>('GET', '/v1/ssh-keys/key-001')).body.spec.public_key
    const spec = {
      source_url: 'https://images.example/x.img',
      sha256: 'a'.repeat(64),
      min_disk_gb: 1,
      default_user: 'u',
    }
    for (const [path, body] of [
      ['vpcs', { id: 'vpc-x', spec: { cidr: '10.9.0.0/16' } }],
      ['subnets', { id: 'subnet-x', spec: { vpc_id: 'vpc-abc123', cidr: '10.0.9.0/24' } }],
      ['security-groups', { id: 'sg-x', spec: { rules: [] } }],
      ['ssh-keys', { id: 'key-x', spec: { public_key: key } }],
      ['images', { id: 'x', spec }],
      ['public-ips', { id: 'pip-x', spec: {} }],
    ] as const) {
      const resource = `/v1/${path}/${body.id}`
      expect({ path, status: (await stack.api('POST', `/v1/${path}`, body)).status }).toEqual({ path, status: 201 })
      const old = await etagOf(stack, resource)
      expect((await stack.api('DELETE', resource)).status).toBe(204)
      await stack.api('POST', `/v1/${path}`, body)
      const late = await stack.api('PATCH', resource, { metadata: { name: 'late' } }, { 'if-match': old })
      expect({ path, status: late.status, code: late.body.code }).toEqual({
        path,
        status: 412,
        code: 'precondition_failed',
      })
      const current = await etagOf(stack, resource)
      const fine = await stack.api('PATCH', resource, { metadata: { name: 'fine' } }, { 'if-match': current })
      expect({ path, status: fine.status }).toEqual({ path, status: 200 })
    }
  })

  test('a PATCH that changes nothing keeps the version and tells nobody', async () => {
    await using stack = await startStack({ agent: false })
    await stack.ensureExamples()
    const { id } = await stack.create({ security_groups: ['sg-web'] }, { name: 'web', labels: { a: 'b' } })
    await stack.api('PATCH', '/v1/vpcs/vpc-abc123', { metadata: { labels: { a: 'b' } } })
    const web = (await stack.api<{ spec: object }>('GET', '/v1/security-groups/sg-web')).body
    const events = await openEvents(stack.port)
    for (const [path, body] of [
      [`/v1/instances/${id}`, {}],
      [`/v1/instances/${id}`, { metadata: {}, spec: {} }],
      [`/v1/instances/${id}`, { metadata: { name: 'web', labels: { a: 'b', none: null } } }],
      [`/v1/instances/${id}`, { spec: { security_groups: ['sg-web'] } }],
      ['/v1/vpcs/vpc-abc123', {}],
      ['/v1/vpcs/vpc-abc123', { metadata: { labels: { a: 'b' } } }],
      ['/v1/subnets/subnet-def456', { metadata: {} }],
      ['/v1/security-groups/sg-web', {}],
      ['/v1/security-groups/sg-web', { spec: web.spec }],
      ['/v1/ssh-keys/key-001', {}],
      [`/v1/hosts/${stack.hostId}`, {}],
      [`/v1/hosts/${stack.hostId}`, { spec: { schedulable: true } }],
    ] as const) {
      const before = await stack.api('GET', path)
      const answer = await stack.api('PATCH', path, body)
      const what = { path, body }
      expect({ ...what, status: answer.status, etag: answer.headers.etag, text: answer.text }).toEqual({
        ...what,
        status: 200,
        etag: before.headers.etag,
        text: before.text,
      })
    }
    await stack.api('PATCH', '/v1/vpcs/vpc-abc123', { metadata: { name: 'end' } })
    await events.until(() => events.events.length > 0)
    expect(events.events.map(({ event, data }) => `${event} ${data.resource_id}`)).toEqual(['vpc.updated vpc-abc123'])
    events.drop()
  })

  test('If-Match takes *, a list, and other spellings of a list; a weak tag is no match', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create()
    let count = 0
    const attempt = async (ifMatch: (etag: string) => string) => {
      const etag = await etagOf(stack, `/v1/instances/${id}`)
      const headers = { 'if-match': ifMatch(etag) }
      return (await patch(stack, id, { metadata: { name: `n${count++}` } }, headers)).status
    }
    expect(await attempt(() => '*')).toBe(200)
    expect(await attempt((etag) => etag)).toBe(200)
    expect(await attempt((etag) => `"other", ${etag}`)).toBe(200)
    expect(await attempt((etag) => `"other",${etag},"9-9"`)).toBe(200)
    expect(await attempt((etag) => ` ${etag} `)).toBe(200)
    expect(await attempt((etag) => `W/${etag}`)).toBe(412) // RFC 9110, 13.1.1: strong comparison
    expect(await attempt((etag) => etag.replaceAll('"', ''))).toBe(412)
    expect(await attempt(() => '"other"')).toBe(412)
    expect(await attempt(() => '')).toBe(412)
    expect(await attempt(() => 'x'.repeat(1025))).toBe(400)
  })

  test('of two changes of the same version at the same moment exactly one is made', async () => {
    await using stack = await startStack({ agent: false })
    await stack.ensureExamples()
    const { id } = await stack.create()
    for (const [path, change] of [
      [`/v1/instances/${id}`, (name: string) => ({ metadata: { name } })],
      [`/v1/instances/${id}`, (name: string) => ({ spec: { security_groups: [`sg-${name}`] } })],
      ['/v1/vpcs/vpc-abc123', (name: string) => ({ metadata: { labels: { name } } })],
      [`/v1/hosts/${stack.hostId}`, (name: string) => ({ metadata: { name } })],
    ] as const) {
      const etag = await etagOf(stack, path)
      const names = ['web', 'ssh']
      const answers = await Promise.all(
        names.map((name) => stack.api<Instance>('PATCH', path, change(name), { 'if-match': etag })),
      )
      expect(answers.map((answer) => answer.status).sort()).toEqual([200, 412])
      const winner = answers.find((answer) => answer.status === 200)
      expect((await stack.api('GET', path)).body).toEqual(winner?.body)
    }
  })

  test('a power action is a new version too', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const before = await etagOf(stack, `/v1/instances/${id}`)
    await stack.ended(await stack.act(id, 'stop'))
    expect((await patch(stack, id, { metadata: { name: 'x' } }, { 'if-match': before })).status).toBe(412)
  })
})

test('an instance that is being deleted, or is gone, cannot be changed', async () => {
  await using stack = await startStack({ host: { guestShutdownMs: 60_000 } })
  const { id } = await stack.createReady()
  const deleting = await stack.delete(id, '?grace_seconds=3600')
  expect(await patch(stack, id, { metadata: { name: 'x' } })).toMatchObject({
    status: 409,
    body: { code: 'invalid_state' },
  })
  await stack.delete(id, '?grace_seconds=0')
  await stack.ended(deleting)
  const terminated = await stack.get(id)
  expect(terminated.status.state).toBe('terminated')
  expect(await patch(stack, id, { metadata: { name: 'x' } })).toMatchObject({
    status: 409,
    body: { code: 'invalid_state' },
  })
  expect(await stack.get(id)).toEqual(terminated)
  expect((await patch(stack, 'inst-00000000000000000000', {})).status).toBe(404)
})

test('rules of a group are replaced whole, and faults in them are named', async () => {
  await using stack = await startStack({ agent: false })
  const rule = { direction: 'ingress', protocol: 'tcp', port_from: 80, remote: { cidr: '0.0.0.0/0' }, description: '' }
  await stack.api('POST', '/v1/security-groups', { id: 'sg-a', spec: { rules: [rule] } })
  const change = (spec: unknown) => stack.api<{ spec: unknown }>('PATCH', '/v1/security-groups/sg-a', { spec })
  expect((await change({ description: 'text' })).body.spec).toEqual({ description: 'text', rules: [rule] })
  const own = { ...rule, remote: { security_group: 'sg-a' } }
  expect((await change({ rules: [own] })).body.spec).toEqual({ description: 'text', rules: [own] })
  const faults = [
    { ...rule, protocol: 'icmp' },
    { ...rule, port_from: 9, port_to: 8 },
    { ...rule, remote: { security_group: 'sg-none' } },
    { ...rule, remote: { cidr: '10.0.0.1/8' } },
  ]
  const { status, body } = await stack.api('PATCH', '/v1/security-groups/sg-a', { spec: { rules: faults } })
  expect({ status, pointers: body.errors.map((error) => error.pointer) }).toEqual({
    status: 422,
    pointers: [
      '/spec/rules/0/port_from',
      '/spec/rules/1/port_to',
      '/spec/rules/2/remote/security_group',
      '/spec/rules/3/remote/cidr',
    ],
  })
  expect((await change({})).body.spec).toEqual({ description: 'text', rules: [own] })
  expect((await stack.api('POST', '/v1/ssh-keys', { id: 'key-a', spec: { public_key: testPublicKey } })).status).toBe(
    201,
  )
})
