import type { Instance, InstanceCreated } from '@berth/contract/instances/instances.ts'
import { isStorageUnavailable } from '@berth/server/store/engine/engine.ts'
import { Store } from '@berth/server/store/store.ts'
import { startProxy } from '@berth/server/store/testing/postgres-proxy.ts'
import { type RunningPostgres, startPostgres } from '@berth/server/store/testing/postgres-server.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type EventStream, openEvents } from '../event-stream.ts'
import { type Stack, startStack, until } from '../stack.ts'

let postgres: RunningPostgres
let count = 0

beforeAll(async () => {
  postgres = await startPostgres()
})
afterAll(async () => {
  await postgres.stop()
})

/** A database of its own on the one server of this file. */
async function newDatabase(): Promise<string> {
  const name = `stack_${++count}`
  await postgres.query('postgres', `create database ${name}`)
  return postgres.url(name)
}

const nameOf = (database: string) => new URL(database).pathname.slice(1)

const body = { spec: { type: 'micro', image: 'micro' } }

const create = (stack: Stack, key: string) =>
  stack.api<InstanceCreated>('POST', '/v1/instances', body, { 'idempotency-key': key })

/** Ask again and again with the same key until the answer is not 503; gives the last and how often it was 503. */
async function createStubbornly(stack: Stack, key: string) {
  let refused = 0
  const answer = await until(
    () => create(stack, key),
    ({ status }) => {
      if (status === 503) refused++
      return status !== 503
    },
  )
  return { answer, refused }
}

const operationsOf = (stream: EventStream) =>
  stream.events.filter(({ event }) => event.startsWith('operation.')).map(({ data }) => data.detail)

test('the life of an instance on PostgreSQL: create, ready, stop, start, patch, delete', async () => {
  await using stack = await startStack({ database: await newDatabase() })
  await stack.ensureExamples()
  const events = await openEvents(stack.port)
  const created = await create(stack, 'k1')
  expect(created.status).toBe(201)
  const again = await create(stack, 'k1')
  expect({ text: again.text, replayed: again.headers['idempotency-replayed'] }).toEqual({
    text: created.text,
    replayed: 'true',
  })
  const { id } = created.body
  const ready = await stack.reach(id, 'ready')
  expect(ready.status).toMatchObject({ state: 'running', host_id: stack.hostId, private_ip: '10.64.0.4' })
  expect((await stack.ended(created.body.operation_id)).status).toBe('succeeded')
  await stack.ended(await stack.act(id, 'stop'))
  expect((await stack.list('?state=stopped')).map((instance) => instance.id)).toEqual([id])
  await stack.ended(await stack.act(id, 'start'))
  const labels = { team: 'platform' }
  const spec = { security_groups: ['sg-web'] }
  const patched = await stack.api<Instance>('PATCH', `/v1/instances/${id}`, { metadata: { labels }, spec })
  expect(patched.body).toMatchObject({ metadata: { labels, generation: 4 }, spec })
  await until(
    () => stack.get(id),
    ({ status }) => status.observed_generation === 4,
  )
  expect((await stack.list('?label_selector=team%20in%20(platform,other)')).length).toBe(1)
  await stack.restartServer()
  expect((await stack.reach(id, 'ready')).id).toBe(id)
  await stack.ended(await stack.delete(id))
  expect((await stack.get(id)).status.state).toBe('terminated')
  expect((await stack.hostDocument()).status.allocated).toEqual({ vcpus: 0, memory_mb: 0, disk_gb: 0 })
  expect(stack.host.leftovers()).toEqual([])

  const rest = await openEvents(stack.port, '', { 'last-event-id': String(events.lastId()) })
  const done = (stream: EventStream) =>
    operationsOf(stream).some((detail) => detail.type === 'instance.delete' && detail.status === 'succeeded')
  await rest.until(done)
  const all = [...events.events, ...rest.events].map(({ data }) => data.sequence)
  expect(new Set(all).size).toBe(all.length)
  expect([...all].sort((a, b) => a - b)).toEqual(all)
  rest.drop()
})

test('fifty creates with one key at the same moment make one instance', async () => {
  await using stack = await startStack({ agent: false, database: await newDatabase() })
  const answers = await Promise.all(Array.from({ length: 50 }, () => create(stack, 'k1')))
  expect(new Set(answers.map((answer) => answer.text)).size).toBe(1)
  expect(await stack.list()).toHaveLength(1)
})

test('while PostgreSQL is away requests answer 503, and everything goes on by itself when it is back', async () => {
  await using stack = await startStack({ database: await newDatabase() })
  const first = await stack.createReady()
  const events = await openEvents(stack.port, '?after=0')
  await events.until((stream) => stream.events.length > 0)

  const comeBack = await postgres.kill()
  for (const [method, path, sent] of [
    ['GET', '/v1/instances', undefined],
    ['GET', `/v1/instances/${first.id}`, undefined],
    ['GET', `/v1/operations/${first.operation_id}?wait=5`, undefined],
    ['POST', '/v1/instances', body],
    ['PATCH', `/v1/instances/${first.id}`, { metadata: { name: 'x' } }],
    ['POST', `/v1/instances/${first.id}/stop`, {}],
    ['DELETE', `/v1/instances/${first.id}`, undefined],
    ['GET', '/v1/events?after=0', undefined],
  ] as const) {
    const answer = await stack.api(method, path, sent)
    expect({ method, path, status: answer.status, code: answer.body.code }).toEqual({
      method,
      path,
      status: 503,
      code: 'unavailable',
    })
    expect(answer.headers['retry-after']).toMatch(/^\d+$/)
  }
  expect(stack.host.vmmOf(first.id)).not.toBe(null)
  await comeBack()

  const { answer } = await createStubbornly(stack, 'k1')
  const second = await stack.reach(answer.body.id, 'ready')
  await events.until((stream) => stream.events.some(({ data }) => data.resource_id === second.id))
  events.drop()
  expect((await stack.list()).map((instance) => instance.id)).toEqual([first.id, second.id])
  for (const { id } of [first, second]) await stack.ended(await stack.delete(id))
  expect(stack.host.leftovers()).toEqual([])
})

test('PostgreSQL that crashes again and again under writers loses no answered create and doubles none', async () => {
  await using stack = await startStack({ agent: false, database: await newDatabase() })
  const made = new Map<string, string>()
  let refused = 0
  let next = 0
  let over = false
  const writer = async () => {
    while (!over) {
      const key = `k${next++}`
      const { answer, refused: times } = await createStubbornly(stack, key)
      expect({ key, status: answer.status, text: answer.status === 201 ? '' : answer.text }).toMatchObject({ text: '' })
      refused += times
      made.set(key, answer.body.id)
    }
  }
  const writers = Promise.all(Array.from({ length: 8 }, writer))
  for (let crash = 1; crash <= 4; crash++) {
    const before = made.size
    await until(
      () => made.size,
      (size) => size >= before + 10,
    )
    await postgres.crash()
  }
  over = true
  await writers
  expect(refused).toBeGreaterThan(0)
  expect(new Set(made.values()).size).toBe(made.size)
  expect((await stack.list()).map((instance) => instance.id).sort()).toEqual([...made.values()].sort())
})

test('a connection that dies inside a transaction ends only what shares that transaction', async () => {
  const database = await newDatabase()
  const store = await Store.open(database)
  try {
    const killed = store.write(async (tx) => {
      const own = tx.db.selectNoFrom((eb) => eb.fn<number>('pg_backend_pid', []).as('pid'))
      const { pid } = await own.executeTakeFirstOrThrow()
      await postgres.query('postgres', `select pg_terminate_backend(${pid})`)
      await tx.db.selectFrom('vpcs').selectAll().execute()
    })
    const error: unknown = await killed.catch((thrown: unknown) => thrown)
    expect({ error, unavailable: isStorageUnavailable(error) }).toEqual({ error, unavailable: true })
    expect(await store.write((tx) => tx.db.selectFrom('vpcs').selectAll().execute())).toEqual([])
  } finally {
    await store.close()
  }
})

test('a commit whose answer is lost is 503, is done all the same, and whoever waits hears of it', async () => {
  const direct = await newDatabase()
  const proxy = await startProxy(postgres.url)
  const database = proxy.url(nameOf(direct))
  try {
    // nothing but the commit itself may have the controllers and the stream look
    await using stack = await startStack({ agent: false, database, settings: { controllerPeriodMs: 600_000 } })
    const events = await openEvents(stack.port)
    const lost = proxy.loseNextCommit()
    const answer = await stack.api('POST', '/v1/instances', body, { 'idempotency-key': 'k1' })
    await lost
    expect(answer).toMatchObject({ status: 503, body: { code: 'unavailable' } })
    await events.until(() => events.events.some(({ event }) => event === 'instance.created'))
    const [made] = await stack.list()
    await until(
      () => stack.get(made?.id ?? ''),
      ({ status }) => status.conditions[0]?.message === 'No host has connected yet.',
    )
    const again = await create(stack, 'k1')
    expect({ status: again.status, id: again.body.id, replayed: again.headers['idempotency-replayed'] }).toEqual({
      status: 201,
      id: made?.id,
      replayed: 'true',
    })
    expect(await stack.list()).toHaveLength(1)
    events.drop()
  } finally {
    await proxy.stop()
  }
})

test('while another session holds a lock, what needs it is 503 with Retry-After, all else goes on, and nothing is half done', async () => {
  const database = await newDatabase()
  await using stack = await startStack({ agent: false, database })
  // reads pass, writes wait
  const release = await postgres.hold(nameOf(database), 'lock table security_groups in exclusive mode')
  try {
    const group = { id: 'sg-x', spec: { description: '', rules: [] } }
    const made = stack.api('POST', '/v1/security-groups', group, { 'idempotency-key': 'k1' })
    expect((await stack.api('GET', '/v1/security-groups')).status).toBe(200)
    const refused = await made
    expect(refused).toMatchObject({ status: 503, body: { code: 'unavailable' } })
    expect(refused.headers['retry-after']).toMatch(/^\d+$/)
    expect((await stack.api('POST', '/v1/vpcs', { spec: { cidr: '10.9.0.0/16' } })).status).toBe(201)
    await release()
    const again = await stack.api('POST', '/v1/security-groups', group, { 'idempotency-key': 'k1' })
    expect({ status: again.status, replayed: again.headers['idempotency-replayed'] }).toEqual({ status: 201 })
  } finally {
    await release()
  }
})

test('text that PostgreSQL cannot store or compare is answered as a fault of the request', async () => {
  await using stack = await startStack({ agent: false, database: await newDatabase() })
  for (const path of [
    '/v1/instances?name=%00',
    '/v1/instances?host_id=%00',
    '/v1/instances?vpc_id=a%00',
    '/v1/instances?subnet_id=%00',
    '/v1/instances?label_selector=a%00',
    '/v1/operations?resource_id=%00',
    '/v1/vpcs?name=%00',
    '/v1/subnets?vpc_id=%00',
    `/v1/instances?cursor=${forgedCursor('\0')}`,
    `/v1/vpcs?cursor=${forgedCursor('\0')}`,
    '/v1/instances/%00',
    '/v1/events?resource_id=%00&after=x',
  ]) {
    const { status, text } = await stack.api('GET', path)
    expect({ path, status, text: status === 400 || status === 200 ? '' : text }).toMatchObject({ text: '' })
  }
  const group = { spec: { description: 'a\0b' } }
  expect((await stack.api('POST', '/v1/security-groups', group)).status).toBe(422)
  expect(
    (await stack.api('POST', '/v1/vpcs', { metadata: { name: 'a\0' }, spec: { cidr: '10.0.0.0/16' } })).status,
  ).toBe(422)
})

/** A cursor for an empty filter with a key of the caller's making; the hash in it is no secret. */
function forgedCursor(key: string): string {
  return Buffer.from(JSON.stringify([key, 'T1PNoYwrqgwD'])).toString('base64url')
}
