import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { HostError } from '@berth/agent/host-driver.ts'
import { ImageStore } from '@berth/agent/image/store.ts'
import { type Fault, FaultyFileServer } from '@berth/agent/testing/faulty-file-server.ts'
import SqliteDatabase from 'better-sqlite3'
import { describe, expect, test } from 'vitest'
import { createLogger } from '../../bin/process/log.ts'
import { startStack, testPublicKey, until } from '../stack.ts'

type Line = Record<string, unknown>

/** A logger and the lines that it wrote; every line is one JSON document. */
function memoryLog(level: string) {
  const texts: string[] = []
  const log = createLogger(level, { write: (text) => void texts.push(text) })
  return { log, texts, lines: (): Line[] => texts.map((text) => JSON.parse(text)) }
}

const of = (lines: readonly Line[], message: string) => lines.filter((line) => line.msg === message)

describe('following a request', () => {
  test('one id leads from the HTTP request to its operation, and that one to what the host did', async () => {
    const { log, lines } = memoryLog('info')
    await using stack = await startStack({ log })
    const answer = await stack.api<{ id: string; operation_id: string }>('POST', '/v1/instances', {
      spec: { type: 'micro', image: 'micro' },
    })
    const { id, operation_id } = answer.body
    await stack.reach(id, 'ready')
    await until(lines, (all) => of(all, 'operation ended').length === 1)

    const requestId = answer.headers['x-request-id']
    const byRequest = lines().filter((line) => line.request_id === requestId)
    expect(byRequest.map((line) => line.msg)).toEqual(['operation opened', 'request'])
    expect(byRequest[0]).toMatchObject({ operation_id, operation_type: 'instance.create', instance_id: id })
    expect(byRequest[1]).toMatchObject({ level: 30, method: 'POST', route: '/v1/instances', status: 201 })
    expect(byRequest[1]?.duration_ms).toBeGreaterThan(0)

    const byOperation = lines().filter((line) => line.operation_id === operation_id)
    expect(byOperation.map((line) => [line.process, line.msg, line.step ?? line.action ?? ''])).toEqual([
      ['server', 'operation opened', ''],
      ['server', 'placed', ''],
      ['agent', 'acting', 'start'],
      ['agent', 'step ended', 'image'],
      ['agent', 'step ended', 'disk'],
      ['agent', 'step ended', 'network'],
      ['agent', 'step ended', 'boot'],
      ['server', 'operation ended', ''],
    ])
    expect(byOperation.every((line) => line.instance_id === id)).toBe(true)
    expect(byOperation.at(-1)).toMatchObject({ status: 'succeeded' })
  })

  test('what the host does for a later operation carries the id of that one', async () => {
    const { log, lines } = memoryLog('info')
    await using stack = await startStack({ log })
    const { id } = await stack.createReady()
    const stop = await stack.act(id, 'stop')
    await stack.ended(stop)
    const acts = lines().filter((line) => line.process === 'agent' && line.operation_id === stop)
    expect(acts).toMatchObject([{ action: 'shutdown' }, { step: 'shutdown', status: 'succeeded' }])
  })

  test('a failure of the host is logged with the operation that it ends', async () => {
    const { log, lines } = memoryLog('info')
    await using stack = await startStack({ log })
    stack.host.failNext('disk', new HostError('disk_failed', 'the disk is no more', { retryable: false }))
    const { operation_id } = await stack.create()
    await stack.ended(operation_id)
    const told = lines().filter((line) => line.operation_id === operation_id)
    expect(of(told, 'step ended').at(-1)).toMatchObject({ step: 'disk', status: 'failed', code: 'disk_failed' })
    expect(of(told, 'operation ended')).toMatchObject([{ status: 'failed', code: 'disk_failed' }])
  })

  test('an operation that was rolled back was never opened', async () => {
    const { log, lines } = memoryLog('info')
    await using stack = await startStack({ log, agent: false })
    await stack.api('POST', '/v1/instances?dry_run=true', { spec: { type: 'micro', image: 'micro' } })
    expect(of(lines(), 'operation opened')).toEqual([])
  })
})

describe('the line of a request', () => {
  test('is one for each, and a failure of the server is an error with its cause', async () => {
    const { log, lines } = memoryLog('info')
    await using stack = await startStack({ log, agent: false })
    const database = new SqliteDatabase(stack.databaseFile)
    database.exec(
      `create trigger spoil before insert on instances begin select raise(abort, 'the table is spoilt'); end`,
    )
    database.close()
    const broken = await stack.api('POST', '/v1/instances', { spec: { type: 'micro', image: 'micro' } })
    expect(broken.status).toBe(500)
    expect(broken.text).not.toContain('spoilt')
    const missing = await stack.api('GET', '/v1/instances/inst-00000000000000000000')
    const requests = of(lines(), 'request')
    expect(requests.map((line) => [line.request_id, line.level, line.status])).toEqual([
      [broken.headers['x-request-id'], 50, 500],
      [missing.headers['x-request-id'], 30, 404],
    ])
    expect(requests[0]).toMatchObject({ code: 'internal', err: { message: 'the table is spoilt' } })
  })

  test('a request that cannot be routed has its line too', async () => {
    const { log, lines } = memoryLog('info')
    await using stack = await startStack({ log, agent: false })
    const answer = await stack.api('GET', '/%ff')
    expect(of(lines(), 'request')).toMatchObject([
      { request_id: answer.headers['x-request-id'], route: 'unmatched', status: 400 },
    ])
  })

  test('what machines ask all the time is logged at debug only, unless it fails', async () => {
    const quiet = memoryLog('info')
    const loud = memoryLog('debug')
    for (const { log } of [quiet, loud]) {
      await using stack = await startStack({ log })
      await stack.createReady()
      for (const path of ['/healthz', '/readyz', '/metrics']) await stack.api('GET', path)
      await stack.agentApi('GET', '/v1/agent/desired?since=0', undefined, 'wrong')
    }
    const routes = (lines: readonly Line[]) => new Set(of(lines, 'request').map((line) => line.route))
    const ownAtTheEnd = '/v1/orphans' // every stack looks for what it left
    expect(routes(quiet.lines())).toEqual(
      new Set(['/v1/instances', '/v1/instances/:id', '/v1/agent/desired', ownAtTheEnd]),
    )
    expect(of(quiet.lines(), 'request').filter((line) => line.route === '/v1/agent/desired')).toMatchObject([
      { status: 401 },
    ])
    for (const route of ['/healthz', '/readyz', '/metrics', '/v1/agent/observed']) {
      expect(routes(loud.lines())).toContain(route)
    }
  })

  test('a waiting request that its caller leaves says so', async () => {
    const { log, lines } = memoryLog('info')
    await using stack = await startStack({ log, agent: false })
    const { id } = await stack.create()
    const leaving = new AbortController()
    const url = `${stack.url}/v1/instances/${id}?wait_for=running`
    const waiting = fetch(url, { signal: leaving.signal }).catch((error: Error) => error.name)
    await until(
      () => stack.api('GET', '/metrics'),
      ({ text }) => text.includes('berth_http_held_requests{kind="wait"} 1'),
    )
    leaving.abort()
    expect(await waiting).toBe('AbortError')
    const left = await until(
      () => of(lines(), 'request').filter((line) => line.held === 'wait'),
      (found) => found.length === 1,
    )
    expect(left).toMatchObject([{ aborted: true, route: '/v1/instances/:id' }])
    expect(left[0]).not.toHaveProperty('status')
  })
})

describe('the id a caller gives its request', () => {
  test('is logged beside ours, which stays the id of the request', async () => {
    const { log, lines } = memoryLog('info')
    await using stack = await startStack({ log, agent: false })
    const answer = await stack.api('GET', '/v1/instances', undefined, { 'x-request-id': 'ci/run-7:step.2' })
    expect(answer.headers['x-request-id']).toMatch(/^req-[0-9a-f]{20}$/)
    expect(of(lines(), 'request')).toMatchObject([
      { request_id: answer.headers['x-request-id'], caller_request_id: 'ci/run-7:step.2' },
    ])
  })

  test.each([
    ['longer than 64 characters', 'a'.repeat(65)],
    ['of other characters', 'a","level":60,"msg":"forged'],
    ['with a control character', 'a\tb'],
    ['empty', ''],
  ])('is left out when it is %s', async (_what, given) => {
    const { log, lines, texts } = memoryLog('info')
    await using stack = await startStack({ log, agent: false })
    await stack.api('GET', '/v1/instances', undefined, { 'x-request-id': given })
    expect(of(lines(), 'request')).toHaveLength(1)
    expect(of(lines(), 'request')[0]).not.toHaveProperty('caller_request_id')
    expect(texts.join('')).not.toContain('forged')
  })
})

describe('the URL of an image', () => {
  const secret = 'signature-4711'
  const signed = `?X-Signature=${secret}`
  const faults: [string, string[], Fault[]][] = [
    ['is refused by its server', ['403'], [{ kind: 'status', status: 403 }]],
    ['has other bytes than promised', ['not the one that was registered'], []],
    ['is cut off', ['cut', 'attempts'], [{ kind: 'cut', afterBytes: 10 }]],
    ['leads to this machine', ['loopback'], [{ kind: 'redirect', location: `http://127.0.0.2/a${signed}` }]],
    ['leads to credentials', ['credentials'], [{ kind: 'redirect', location: `http://${secret}:x@host.example/` }]],
    ['leads to another kind of URL', ['ftp:'], [{ kind: 'redirect', location: `ftp://host.example/${secret}` }]],
    ['leads nowhere', ['not a URL'], [{ kind: 'redirect', location: `http://[${secret}` }]],
    ['goes round', ['redirects'], [{ kind: 'redirect', location: signed }]],
  ]

  /** What a store logs and throws while it downloads an image whose URL is signed. */
  async function download(script: Fault[]): Promise<{ told: string; error: Error | null }> {
    const { log, texts } = memoryLog('trace')
    const server = await FaultyFileServer.start()
    const directory = await mkdtemp(join(tmpdir(), 'berth-logs-'))
    const limits = { delay: async () => undefined }
    const clock = { now: Date.now }
    const images = new ImageStore({ directory, log, clock, allowPrivateSources: ['127.0.0.1'], limits })
    const disk = Buffer.alloc(1024)
    disk.writeUInt16BE(0x55aa, 510) // a boot sector, as images begin with
    server.put(`/disk.qcow2${signed}`, disk)
    server.misbehave(...script)
    const about = { title: 'Micro', min_disk_gb: 1, architecture: 'x86_64', default_user: 'root' } as const
    const source_url = `${server.url('/disk.qcow2')}${signed}`
    const image = {
      id: 'micro',
      ...about,
      network: 'static',
      source_url,
      checksum: `sha256:${'0'.repeat(64)}`,
    } as const
    let error: Error | null = null
    try {
      await images.ensure(image, { signal: new AbortController().signal })
    } catch (failure) {
      error = failure instanceof Error ? failure : null
    }
    await images.close()
    await server.close()
    await rm(directory, { recursive: true })
    return { told: texts.join(''), error }
  }

  test.each(faults)('that %s is told without what may be secret in it', async (_what, words, script) => {
    const { told, error } = await download(script)
    expect(told).toContain('image download failed')
    expect(error?.message).toMatch(/^GET http:\/\/127\.0\.0\.1:\d+\/disk\.qcow2\?…: /)
    for (const word of words) expect(error?.message).toContain(word)
    expect(`${told}${error?.message}${error?.stack}`).not.toContain(secret)
  })
})

test('no secret is ever logged, not at the most talkative level and not when things fail', async () => {
  const { log, texts, lines } = memoryLog('trace')
  const script = '#!/bin/sh\necho hunter2-of-the-first-boot\n'
  const userData = Buffer.from(script).toString('base64')
  const secrets = {
    'user data': userData,
    'decoded user data': 'hunter2',
    'the credential of the host': 'credential-of-the-host',
    'a wrong credential': 'wrong-credential-4711',
    'an Authorization of a client': 'dXNlcjpwYXNzd29yZA',
    'an idempotency key': 'key-of-a-retry-0815',
    'a public key': testPublicKey.split(' ')[1] ?? '',
    'a query': 'queried-name',
    'a header of a caller': 'session-cookie-99',
  }
  await using stack = await startStack({ log })
  await stack.ensureExamples()
  stack.host.failNext(
    'disk',
    new HostError('disk_failed', 'no', { retryable: true, tryAgain: true, cause: new Error('because') }),
  )
  const body = { spec: { type: 'micro', image: 'micro', user_data: userData, ssh_key_ids: ['key-001'] } }
  const headers = {
    authorization: `Basic ${secrets['an Authorization of a client']}`,
    cookie: `session=${secrets['a header of a caller']}`,
    'idempotency-key': secrets['an idempotency key'],
  }
  const created = await stack.api<{ id: string }>('POST', '/v1/instances', body, headers)
  expect(created.status).toBe(201)
  await stack.reach(created.body.id, 'ready')
  await stack.api('GET', `/v1/instances?name=${secrets['a query']}`)
  await stack.api('POST', '/v1/instances', `{"spec": ${userData}`, headers) // not JSON
  await stack.api('POST', '/v1/instances', { spec: { ...body.spec, [userData.slice(0, 60)]: 1 } }, headers)
  await stack.agentApi('POST', '/v1/agent/observed', {}, secrets['a wrong credential'])
  await stack.agentApi('POST', '/v1/agent/observed', { user_data: userData })
  const database = new SqliteDatabase(stack.databaseFile)
  database.exec(`create trigger spoil before insert on instances
    begin select raise(abort, 'this row is refused'); end`)
  database.close()
  const failed = await stack.api('POST', '/v1/instances', body)
  expect(failed.status).toBe(500)
  await stack.restartServer()
  await stack.restartAgent()

  const all = texts.join('')
  for (const message of ['request', 'operation opened', 'step ended', 'acting', 'the step failed; it is tried again']) {
    expect(of(lines(), message).length, message).toBeGreaterThan(0)
  }
  expect(all).toContain('this row is refused')
  for (const [what, secret] of Object.entries(secrets)) expect(all.includes(secret), what).toBe(false)
})
