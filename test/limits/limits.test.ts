import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Instance } from '@berth/contract/instances/instances.ts'
import { defaultLimits, type Limits } from '@berth/server/limits.ts'
import { afterEach, describe, expect, test } from 'vitest'
import { type Stack, type StackOptions, startStack, until } from '../stack.ts'
import { RawConnection } from './raw-connection.ts'

let stack: Stack
const connections: RawConnection[] = []

async function start(limits: Partial<Limits>, options: StackOptions = { agent: false }): Promise<void> {
  stack = await startStack({ ...options, settings: { limits: { ...defaultLimits, ...limits } } })
}

afterEach(async () => {
  for (const connection of connections.splice(0)) connection.close()
  await stack.close()
})

function open(options: { halfOpen?: boolean } = {}): RawConnection {
  const connection = new RawConnection(stack.port, options)
  connections.push(connection)
  return connection
}

const requestOf = (path: string, method = 'GET', headers: readonly string[] = []) =>
  [`${method} ${path} HTTP/1.1`, `Host: 127.0.0.1:${stack.port}`, ...headers, '', ''].join('\r\n')

/** What any other client sees meanwhile. */
async function othersAreServed(): Promise<void> {
  expect((await stack.api('GET', '/v1/instances')).status).toBe(200)
}

/** A request that may be refused with its connection. */
const attempt = async (path: string) => (await stack.api('GET', path).catch(() => null))?.status ?? 0

describe('request line and headers', () => {
  test('a URI of more than 8 KiB is 414', async () => {
    await start({})
    const answer = await stack.api('GET', `/v1/instances?name=${'a'.repeat(9000)}`)
    expect(answer).toMatchObject({ status: 414, body: { code: 'uri_too_long' } })
    expect(answer.text.length).toBeLessThan(1000)
    await othersAreServed()
  })

  test('more than 100 headers are 431, as are more than 16 KiB', async () => {
    await start({})
    const many = Object.fromEntries(Array.from({ length: 150 }, (_, at) => [`x-${at}`, 'v']))
    const long = { 'x-long': 'a'.repeat(20_000) }
    for (const headers of [many, long]) {
      const answer = await stack.api('GET', '/v1/instances', undefined, headers)
      expect(answer).toMatchObject({ status: 431, body: { code: 'header_too_large' } })
    }
    await othersAreServed()
  })

  test('thousands of tiny headers, twice the same among them, are 431 too', async () => {
    await start({})
    const connection = open()
    connection.send(
      requestOf(
        '/v1/instances',
        'GET',
        Array.from({ length: 3000 }, () => 'a:b'),
      ),
    )
    expect(await connection.received(/\r\n\r\n/)).toMatch(/^HTTP\/1\.1 431 /)
  })
})

describe('slow clients', () => {
  /** Short, and longer than a busy machine needs for a request of somebody who is not slow. */
  const quick = { headersMs: 1000, requestMs: 1500, checkMs: 50 }

  const slow: [string, (connection: RawConnection) => void][] = [
    ['says nothing', () => {}],
    ['stops within the request line', (connection) => connection.send('GET /v1/inst')],
    ['stops within the headers', (connection) => connection.send('GET /v1/instances HTTP/1.1\r\nHost: 127')],
    [
      'sends headers for ever',
      (connection) => {
        connection.send(`GET /v1/instances HTTP/1.1\r\nHost: 127.0.0.1:${stack.port}\r\nX-A: `)
        connection.drip('a')
      },
    ],
    [
      'stops within the body',
      (connection) => {
        const headers = ['Content-Type: application/json', 'Content-Length: 1000']
        connection.send(`${requestOf('/v1/instances', 'POST', headers)}{"spec":`)
      },
    ],
    [
      'sends a body for ever',
      (connection) => {
        const headers = ['Content-Type: application/json', 'Transfer-Encoding: chunked']
        connection.send(requestOf('/v1/instances', 'POST', headers))
        connection.drip('1\r\n \r\n')
      },
    ],
  ]
  test.each(slow)('one that %s is cut off, and others are served', async (_name, behave) => {
    await start(quick)
    const connection = open()
    await connection.connected
    behave(connection)
    await othersAreServed()
    const answer = await connection.closed
    expect(answer).toMatch(/^HTTP\/1\.1 4(08|31) /)
    expect(answer).toMatch(/"code":"(request_timeout|header_too_large)"/)
    await othersAreServed()
  })

  test('a thousand of them at once harm nobody', async () => {
    await start(quick)
    const many = Array.from({ length: 1000 }, () => open())
    await Promise.all(many.map((connection) => connection.connected))
    for (const connection of many) connection.send('GET /v1/instances HTTP/1.1\r\nX-A: ')
    for (let at = 0; at < 20; at++) await othersAreServed()
    expect((await stack.create()).status.state).toBe('provisioning')
    const answers = await Promise.all(many.map((connection) => connection.closed))
    expect(answers.filter((answer) => !answer.startsWith('HTTP/1.1 408 '))).toEqual([])
  })

  test('one that never closes its own end does not keep the connection', async () => {
    await start({ ...quick, connections: 1 })
    const connection = open({ halfOpen: true })
    connection.send('GET /v1/inst')
    expect(await connection.closed).toMatch(/^HTTP\/1\.1 408 /)
    expect(
      await until(
        () => attempt('/healthz'),
        (status) => status === 200,
      ),
    ).toBe(200)
  })

  test('the time for a request is not the time for its answer: a long poll outlives it', async () => {
    await start({ ...quick, keepAliveMs: 500, stalledAnswerMs: 500 })
    const { id, operation_id: operationId } = await stack.create()
    const polls = [`/v1/instances/${id}?wait_for=running&timeout=3`, `/v1/operations/${operationId}?wait=3`]
    for (const answer of await Promise.all(polls.map((path) => stack.api('GET', path)))) {
      expect(answer.status).toBe(200)
    }
  })
})

describe('a flood of connections', () => {
  test('over the cap new ones are closed at once, and those there are served', async () => {
    await start({ connections: 20 })
    const early = Array.from({ length: 20 }, () => open())
    await Promise.all(early.map((connection) => connection.connected))
    const flood = Array.from({ length: 300 }, () => open())
    expect(await Promise.all(flood.map((connection) => connection.closed))).toEqual(flood.map(() => ''))
    for (const connection of early) connection.send(requestOf('/healthz'))
    for (const connection of early) {
      expect(await connection.received(/\{"status":"ok"\}/)).toMatch(/^HTTP\/1\.1 200 /)
    }
    early[0]?.close()
    expect(
      await until(
        () => attempt('/healthz'),
        (status) => status === 200,
      ),
    ).toBe(200)
  })

  test('a connection without a request is closed after a while', async () => {
    await start({ keepAliveMs: 50 })
    const connection = open()
    connection.send(requestOf('/healthz'))
    expect(await connection.closed).toMatch(/^HTTP\/1\.1 200 [\s\S]*"status":"ok"/)
  })
})

describe('requests that wait', () => {
  test('over the cap they are 429; others are served, and a slot that is free again is given away', async () => {
    await start({ waits: 3 })
    const { id, operation_id: operationId } = await stack.create()
    const wait = `/v1/instances/${id}?wait_for=running&timeout=600`
    const waiters = Array.from({ length: 3 }, () => open())
    for (const waiter of waiters) waiter.send(requestOf(wait))
    const refused = await until(
      () => stack.api('GET', `/v1/operations/${operationId}?wait=1`),
      ({ status }) => status === 429,
    )
    expect(refused.body.code).toBe('too_many_waits')
    expect(refused.headers['retry-after']).toBe('1')
    expect((await stack.api('GET', `/v1/instances/${id}?wait_for=ready`)).status).toBe(429)
    expect((await stack.api<Instance>('GET', `/v1/instances/${id}`)).status).toBe(200)
    expect((await stack.api('GET', `/v1/instances/${id}?wait_for=running&timeout=0`)).status).toBe(200)

    waiters[0]?.close()
    const freed = await until(
      () => stack.api('GET', `/v1/operations/${operationId}?wait=1`),
      ({ status }) => status !== 429,
    )
    expect(freed.status).toBe(200)
  })

  test('hosts are not counted: with every slot taken instances still start', async () => {
    await start({ waits: 1 }, {})
    const held = stack.hold('start')
    const { id } = await stack.create()
    const waiter = open()
    waiter.send(requestOf(`/v1/instances/${id}?wait_for=running&timeout=600`))
    await until(
      () => attempt(`/v1/instances/${id}?wait_for=ready&timeout=1`),
      (status) => status === 429,
    )
    held()
    expect(await waiter.received(/"state":"running"/)).toMatch(/berth-wait: reached/i)
  })

  test('a thousand wait and are all answered', async () => {
    await start({}, {})
    const held = stack.hold('start')
    const { id } = await stack.create()
    const waiters = Array.from({ length: 1000 }, () => open())
    for (const waiter of waiters) waiter.send(requestOf(`/v1/instances/${id}?wait_for=running&timeout=600`))
    for (let at = 0; at < 10; at++) await othersAreServed()
    held()
    await Promise.all(waiters.map((waiter) => waiter.received(/berth-wait: reached/i)))
  })

  test('on one connection only so many may stand in a row', async () => {
    await start({ pipelinedRequests: 8 })
    const { id } = await stack.create()
    const polite = open()
    polite.send(requestOf('/healthz').repeat(8))
    await polite.received(/(?:"status":"ok"[\s\S]*){8}/)
    const greedy = open()
    greedy.send(requestOf(`/v1/instances/${id}?wait_for=running&timeout=600`).repeat(1000))
    expect(await greedy.closed).toBe('')
    await othersAreServed()
  })
})

test('clients that have gone give their slots back, also those behind others on one connection', async () => {
  await start({ waits: 3 })
  const { id } = await stack.create()
  const gone = open()
  gone.send(requestOf(`/v1/instances/${id}?wait_for=running&timeout=600`).repeat(3))
  const wait = () => attempt(`/v1/instances/${id}?wait_for=running&timeout=1`)
  await until(wait, (status) => status === 429)
  gone.close()
  expect(await until(wait, (status) => status !== 429)).toBe(200)
  const both = [wait(), wait(), wait()] // all three are free
  expect(await Promise.all(both)).toEqual([200, 200, 200])
})

describe('large bodies', () => {
  const headers = (bytes: number) => ['Content-Type: application/json', `Content-Length: ${bytes}`]

  test('that arrive slowly are limited in number, small ones come through', async () => {
    await start({ largeBodies: 3 })
    const slow = Array.from({ length: 3 }, () => open())
    for (const connection of slow) connection.send(`${requestOf('/v1/instances', 'POST', headers(500_000))}{`)
    const large = Buffer.alloc(20_000, ' ')
    const refused = await until(
      () => stack.api('POST', '/v1/instances', large),
      ({ status }) => status === 503,
    )
    expect(refused.headers['retry-after']).toBe('1')
    expect(refused.body.code).toBe('unavailable')
    expect((await stack.create()).id).toMatch(/^inst-/)
    slow[0]?.close()
    const taken = await until(
      () => stack.api('POST', '/v1/instances', large),
      ({ status }) => status !== 503,
    )
    expect(taken.status).toBe(422) // it is read, and found empty
  })
})

describe('a client that does not take its answers', () => {
  test('is cut off, and one that takes them gets them all', async () => {
    await start({ stalledAnswerMs: 2000, connections: 2 })
    for (let at = 0; at < 200; at++) await stack.create()
    const size = (await stack.api('GET', '/v1/instances')).text.length
    const stalled = open()
    stalled.stopReading()
    stalled.send(requestOf('/v1/instances').repeat(30)) // more than the kernel's buffers take
    const steady = open()
    steady.send(`${requestOf('/v1/instances').repeat(10)}${requestOf('/healthz')}`)
    const received = await steady.received(/"status":"ok"/)
    expect(received.length).toBeGreaterThan(10 * size)
    // both places are taken, until the one that does not read has lost its own
    expect(
      await until(
        () => attempt('/healthz'),
        (status) => status === 200,
      ),
    ).toBe(200)
  })
})

test('of answers that nobody takes the oldest go when they are too many bytes together', async () => {
  await start({ untakenBytes: 1_000_000 })
  for (let at = 0; at < 200; at++) await stack.create()
  expect((await stack.api('GET', '/v1/instances')).text.length).toBeLessThan(500_000)
  const stalled = open()
  stalled.stopReading()
  stalled.send(requestOf('/v1/instances').repeat(30)) // more than the kernel's buffers and the limit take
  const others = Array.from({ length: 20 }, () => open())
  for (const other of others) {
    other.send(requestOf('/v1/instances') + requestOf('/healthz'))
    await other.received(/"status":"ok"/)
  }
  stalled.resumeReading()
  const received = await stalled.closed
  expect(received.match(/HTTP\/1\.1 200 OK/g)?.length ?? 0).toBeLessThan(30)
})

describe('queries', () => {
  const hostile = [
    'a',
    'a=b,c!=d,e in (x,y),!f',
    `${'a,'.repeat(2000)}a`,
    `a in (${'x,'.repeat(2000)}x)`,
    '('.repeat(4000),
    '!'.repeat(4000),
    `a${' '.repeat(4000)}=`,
    'a in (((((((((((((((((((((',
    `${'a'.repeat(63)}=${'b'.repeat(63)}`,
    '\u0000',
    "' or 1=1 --",
    '%',
    'a=b,'.repeat(1000),
    '💥=💥',
  ]

  test('two thousand with label selectors in a row, hostile ones among them, are all answered and harm nobody', async () => {
    await start({})
    await stack.create({}, { labels: { a: 'b' } })
    let answered = 0
    const client = async () => {
      for (let at = 0; at < 250; at++) {
        const selector = encodeURIComponent(
          at % 10 === 0 ? (hostile[(at / 10) % hostile.length] ?? '') : `a=b,c!=${at}`,
        )
        const { status, text } = await stack.api('GET', `/v1/instances?label_selector=${selector}`)
        if (![200, 400, 414].includes(status)) throw new Error(`${selector}: ${status} ${text}`)
        answered++
      }
    }
    const clients = Array.from({ length: 8 }, client)
    for (let at = 0; at < 20; at++) await othersAreServed()
    await Promise.all(clients)
    expect(answered).toBe(2000)
  })
})

test('docs/limits.md lists every limit with its value', async () => {
  const page = await readFile(join(import.meta.dirname, '../../docs/limits.md'), 'utf8')
  const rows = [...page.matchAll(/^\| `(\w+)` \| (\d+) \|/gm)].map(([, name, value]) => [name, Number(value)])
  expect(Object.fromEntries(rows)).toEqual(defaultLimits)
})
