import { fork } from 'node:child_process'
import { once } from 'node:events'
import { Agent, type IncomingMessage, type RequestOptions, request } from 'node:http'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { pino } from 'pino'
import { describe, expect, test } from 'vitest'
import type { ReadyMarker } from '../console/ready-marker.ts'
import { renderSeed } from '../disk/seed.ts'
import { systemTimers } from '../sys/timers.ts'
import { testGuest } from '../testing/guest.ts'
import { seedSecret } from './credentials.ts'
import type { Guest } from './guest.ts'
import { deriveKeys } from './keys.ts'
import { defaultMetadataLimits, type MetadataLimits } from './limits.ts'
import type { NamespaceListeners } from './listener.ts'
import { MetadataService } from './service.ts'

const keys = deriveKeys(Buffer.alloc(32, 7))
const ttl = { 'x-aws-ec2-metadata-token-ttl-seconds': '60' }
const alice = testGuest({ id: 'inst-00000000000000000aaa', hostname: 'alice', user_data: 'YWxpY2U=' })
const bob = testGuest({ id: 'inst-00000000000000000bbb', hostname: 'bob', user_data: 'Ym9i' })

/** Namespaces that are ports of loopback: what a VPC's listener is, without root. */
class LoopbackListeners implements NamespaceListeners {
  readonly opened: { port: number; server: Server }[] = []
  /** What identifies each namespace; one that is not here does not exist. */
  readonly identities = new Map<string, string>()
  failures = 0
  held: Promise<void> | null = null

  async identify(namespace: string) {
    return this.identities.get(namespace) ?? null
  }

  async open(_namespace: string, signal: AbortSignal) {
    if (this.failures-- > 0) throw new Error('no such luck')
    await this.held
    signal.throwIfAborted()
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    this.opened.push({ port, server })
    return server
  }
}

interface Answer {
  status: number
  body: string
  headers: IncomingMessage['headers']
}

/** A service with a VPC a, whose guests the test holds by VPC and address. */
async function startService(options: { limits?: Partial<MetadataLimits>; vpcs?: readonly string[] } = {}) {
  const vpcs = options.vpcs ?? ['vpc-a']
  const listeners = new LoopbackListeners()
  const guests = new Map<string, Guest>()
  const marks: [string, ReadyMarker][] = []
  const counts: string[] = []
  const lines: string[] = []
  const checks: (() => void)[] = []
  const service = new MetadataService({
    keys,
    listeners,
    renderSeed: ({ instance, image }) => renderSeed(instance, { prefixLength: 24, gateway: '10.0.1.1' }, image, 'v'),
    limits: { ...defaultMetadataLimits, checkMs: 50, ...options.limits },
    now: Date.now,
    timers: {
      ...systemTimers,
      every: (_ms, then) => {
        checks.push(then)
        return () => undefined
      },
    },
    log: pino({ level: 'trace' }, { write: (line: string) => void lines.push(line) }),
  })
  service.serve({
    hostId: 'host-00000000000000000000',
    find: (vpcId, address) => guests.get(`${vpcId} ${address}`) ?? null,
    ready: (id, marker) => marks.push([id, marker]),
    count: (part, status) => counts.push(`${part} ${status}`),
  })
  for (const vpcId of vpcs) {
    listeners.identities.set(`ns-${vpcId}`, '1')
    service.open(vpcId, `ns-${vpcId}`)
  }
  await service.settled()
  const port = (index = 0) => listeners.opened[index]?.port ?? 0
  const ask = (path: string, more: RequestOptions & { index?: number; body?: string } = {}): Promise<Answer> => {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    const { index, body, ...rest } = more
    const asked = request({ host: '127.0.0.1', port: port(index), path, agent: false, ...rest }, (response) => {
      const chunks: Buffer[] = []
      response
        .on('data', (chunk) => chunks.push(chunk))
        .once('end', () => {
          resolve({
            status: response.statusCode ?? 0,
            body: Buffer.concat(chunks).toString(),
            headers: response.headers,
          })
        })
    })
    asked.once('error', reject).end(body)
    return promise
  }
  const token = async (more: Parameters<typeof ask>[1] = {}) =>
    (await ask('/latest/api/token', { ...more, method: 'PUT', headers: ttl })).body
  const read = async (path: string, more: Parameters<typeof ask>[1] = {}) =>
    ask(path, { ...more, headers: { 'x-aws-ec2-metadata-token': await token(more) } })
  return {
    ...{ service, listeners, guests, marks, counts, lines, ask, token, read, port },
    check: async () => {
      for (const check of checks) check()
      await service.settled()
    },
    [Symbol.asyncDispose]: () => service.stop(),
  }
}

/** A connection that sends what it is told; `answered` is all that came until it was closed. */
function rawConnection(port: number) {
  const socket: Socket = connect(port, '127.0.0.1')
  let text = ''
  socket.setEncoding('utf8')
  socket.on('data', (chunk) => {
    text += chunk
  })
  socket.on('error', () => undefined)
  const closed = Promise.withResolvers<void>()
  socket.once('close', () => closed.resolve())
  return {
    socket,
    sofar: () => text,
    answered: async () => {
      await closed.promise
      return text
    },
  }
}

async function until(holds: () => boolean): Promise<void> {
  for (let look = 0; !holds(); look++) {
    if (look > 500) throw new Error('it did not come to that within 5 s')
    await delay(10)
  }
}

describe('who asks', () => {
  test('is told by VPC and address: the same address in two VPCs is two instances', async () => {
    await using it = await startService({ vpcs: ['vpc-a', 'vpc-b'] })
    it.guests.set('vpc-a 127.0.0.1', alice).set('vpc-b 127.0.0.1', bob)
    expect((await it.read('/latest/meta-data/hostname', { index: 0 })).body).toBe('alice')
    expect((await it.read('/latest/meta-data/hostname', { index: 1 })).body).toBe('bob')
    const headers = { 'x-aws-ec2-metadata-token': await it.token({ index: 0 }) }
    expect((await it.ask('/latest/user-data', { index: 1, headers })).status).toBe(401)
    const secret = seedSecret(keys.nocloud, alice.instance.id)
    expect((await it.ask(`/nocloud/${secret}/user-data`, { index: 0 })).body).toBe('alice')
    expect((await it.ask(`/nocloud/${secret}/user-data`, { index: 1 })).status).toBe(404)
  })

  test('and is not known gets 404, whatever it asks for', async () => {
    await using it = await startService()
    for (const path of ['/', '/latest/meta-data/', '/nocloud/x/user-data', '/berth/v1/ready']) {
      expect((await it.ask(path)).status, path).toBe(404)
    }
    expect((await it.ask('/latest/api/token', { method: 'PUT', headers: ttl })).status).toBe(404)
  })

  test('over a connection of an earlier holder of the address gets nothing, and neither does that one', async () => {
    await using it = await startService()
    it.guests.set('vpc-a 127.0.0.1', alice)
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const headers = { 'x-aws-ec2-metadata-token': await it.token({ agent }) }
    expect((await it.ask('/latest/user-data', { agent, headers })).body).toBe('alice')
    it.guests.set('vpc-a 127.0.0.1', bob)
    const late = await it.ask('/latest/user-data', { agent, headers })
    expect(late).toMatchObject({ status: 404, body: '', headers: { connection: 'close' } })
    expect((await it.read('/latest/user-data')).body).toBe('bob')
    agent.destroy()
  })

  test('is looked up when the request is whole, not when it begins', async () => {
    await using it = await startService()
    it.guests.set('vpc-a 127.0.0.1', alice)
    const token = await it.token()
    const { socket, answered } = rawConnection(it.port())
    const body = JSON.stringify({ boot_id: 'b', user_data: 'ok', exit_code: 0, output_tail: '' })
    socket.write(`POST /berth/v1/ready HTTP/1.1\r\nHost: a\r\nX-aws-ec2-metadata-token: ${token}\r\n`)
    socket.write(`Content-Length: ${body.length}\r\n\r\n${body.slice(0, 9)}`)
    await until(() => it.listeners.opened[0]?.server.listening === true)
    await delay(20) // so that the first part is read by itself
    it.guests.set('vpc-a 127.0.0.1', bob)
    socket.write(body.slice(9))
    expect(await answered()).toMatch(/^HTTP\/1.1 404 /)
    expect(it.marks).toEqual([])
  })

  test('loses its connections when its address goes', async () => {
    await using it = await startService()
    it.guests.set('vpc-a 127.0.0.1', alice)
    const { socket, sofar, answered } = rawConnection(it.port())
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    await until(() => sofar().includes('401'))
    it.service.disconnect('vpc-a', '127.0.0.2')
    it.service.disconnect('vpc-a', '127.0.0.1')
    await answered()
    expect(socket.errored).toMatchObject({ code: 'ECONNRESET' })
  })
})

describe('a request', () => {
  test.each([
    ['with a head that is too long', `GET / HTTP/1.1\r\nX: ${'x'.repeat(8192)}\r\n\r\n`, /^HTTP\/1.1 431 /],
    ['whose head does not end', 'GET / HTTP/1.1\r\nHost: a\r\n', /^HTTP\/1.1 408 /],
    ['whose body does not end', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{', /^HTTP\/1.1 408 /],
    [
      'with a body that is too long',
      `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n${'x'.repeat(99999)}`,
      /413 /,
    ],
    [
      'with chunks that do not end',
      `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${'9000\r\n'}${'x'.repeat(0x9000)}`,
      /413 /,
    ],
    ['that is none', 'hello\r\n\r\n', /^HTTP\/1.1 400 /],
  ])('%s is refused, and its connection ends', async (_what, text, expected) => {
    await using it = await startService({ limits: { headMs: 200, requestMs: 400 } })
    it.guests.set('vpc-a 127.0.0.1', alice)
    const { socket, answered } = rawConnection(it.port())
    socket.write(text)
    expect(await answered()).toMatch(expected)
  })

  test('before the answer to the one before ends the connection', async () => {
    await using it = await startService()
    it.guests.set('vpc-a 127.0.0.1', alice)
    const { socket, answered } = rawConnection(it.port())
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(50))
    expect((await answered()).match(/HTTP\/1.1/g)?.length ?? 0).toBeLessThan(2)
  })

  test('is counted by part and status, and no log line has its path, token or secret', async () => {
    await using it = await startService()
    it.guests.set('vpc-a 127.0.0.1', alice)
    const secret = seedSecret(keys.nocloud, alice.instance.id)
    const token = await it.token()
    const headers = { 'x-aws-ec2-metadata-token': token }
    await it.ask('/latest/user-data', { headers })
    await it.ask(`/nocloud/${secret}/user-data`)
    await it.ask(`/nocloud/${secret}x/user-data`, { headers: { 'x-forwarded-for': '1' } })
    await it.ask('/secret-path')
    expect(it.counts).toEqual(['token 200', 'user-data 200', 'nocloud 200', 'nocloud 403', 'other 404'])
    const text = it.lines.join('')
    expect(text.match(/metadata request/g)).toHaveLength(5)
    for (const secretText of [secret, token, 'YWxpY2U', 'secret-path']) expect(text).not.toContain(secretText)
  })
})

describe('a connection', () => {
  test('that asks nothing ends, and so does one that asks again and again', async () => {
    await using it = await startService({ limits: { headMs: 150, connectionMs: 400 } })
    it.guests.set('vpc-a 127.0.0.1', alice)
    const idle = rawConnection(it.port())
    const busy = rawConnection(it.port())
    const again = setInterval(() => busy.socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n'), 50)
    await idle.answered()
    expect((await busy.answered()).match(/HTTP\/1.1 401/g)?.length).toBeGreaterThan(2)
    clearInterval(again)
  })

  test('beyond those that a guest may have is refused, while another guest is served', async () => {
    await using it = await startService({ limits: { guestConnections: 2 } })
    it.guests.set('vpc-a 127.0.0.1', alice).set('vpc-a 127.0.0.2', bob)
    const first = [rawConnection(it.port()), rawConnection(it.port())]
    for (const { socket } of first) await once(socket, 'connect')
    const third = rawConnection(it.port())
    await third.answered()
    expect((await it.read('/latest/meta-data/hostname', { localAddress: '127.0.0.2' })).body).toBe('bob')
    for (const { socket } of first) socket.destroy()
  })

  test('of a guest that asks for more than its rate is answered 429', async () => {
    await using it = await startService({ limits: { burst: 10, perSecond: 1 } })
    it.guests.set('vpc-a 127.0.0.1', alice).set('vpc-a 127.0.0.2', bob)
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const statuses: number[] = []
    for (let n = 0; n < 10; n++) statuses.push((await it.ask('/', { agent })).status)
    expect(statuses).toEqual([...Array(9).fill(401), 429]) // the connection was the first of its ten
    agent.destroy()
    expect((await it.ask('/', { localAddress: '127.0.0.2' })).status).toBe(401)
  })
})

describe('the listener of a VPC', () => {
  test('is opened again when it is lost', async () => {
    await using it = await startService()
    it.guests.set('vpc-a 127.0.0.1', alice)
    await it.check()
    expect(it.listeners.opened).toHaveLength(1)
    it.listeners.identities.set('ns-vpc-a', '2') // removed and made anew by somebody
    await it.check()
    expect(it.listeners.opened).toHaveLength(2)
    await expect(it.ask('/', { index: 0 })).rejects.toThrow()
    expect((await it.ask('/', { index: 1 })).status).toBe(401)
  })

  test('is tried again until it can be opened, and that is said once', async () => {
    await using it = await startService({ vpcs: [] })
    it.listeners.failures = 3
    it.listeners.identities.set('ns', '1')
    it.service.open('vpc-a', 'ns')
    for (let n = 0; n < 5; n++) await it.check()
    expect(it.listeners.opened).toHaveLength(1)
    const messages = it.lines.map((line) => JSON.parse(line).msg)
    expect(messages).toEqual(['metadata cannot be served', 'metadata is served again'])
  })

  test('waits for a namespace that is not there yet', async () => {
    await using it = await startService({ vpcs: [] })
    it.service.open('vpc-a', 'ns')
    await it.check()
    expect(it.listeners.opened).toHaveLength(0)
    it.listeners.identities.set('ns', '1')
    it.service.open('vpc-a', 'ns')
    await it.service.settled()
    expect(it.listeners.opened).toHaveLength(1)
  })

  test('is gone, with its connections, when closing it resolves', async () => {
    await using it = await startService()
    it.guests.set('vpc-a 127.0.0.1', alice)
    const { socket, sofar, answered } = rawConnection(it.port())
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    await until(() => sofar().includes('401'))
    const port = it.port()
    await it.service.close('vpc-a')
    await answered()
    const refused = connect(port, '127.0.0.1')
    const [error] = await once(refused, 'error')
    expect(error).toMatchObject({ code: 'ECONNREFUSED' })
    await it.check()
    expect(it.listeners.opened).toHaveLength(1)
  })

  test('is not left behind when it is closed while it opens', async () => {
    await using it = await startService({ vpcs: [] })
    const { promise, resolve } = Promise.withResolvers<void>()
    it.listeners.held = promise
    it.listeners.identities.set('ns', '1')
    it.service.open('vpc-a', 'ns')
    const closed = it.service.close('vpc-a')
    resolve()
    await closed
    expect(it.listeners.opened.filter(({ server }) => server.listening)).toEqual([])
    expect(it.lines).toEqual([])
  })
})

test('a guest that floods the service leaves the others served', async () => {
  await using it = await startService()
  it.guests.set('vpc-a 127.0.0.1', bob).set('vpc-a 127.0.0.2', alice)
  const token = await it.token()
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const p90 = async () => {
    const times: number[] = []
    for (let n = 0; n < 100; n++) {
      const begin = performance.now()
      const answer = await it.ask('/latest/meta-data/mac', { agent, headers: { 'x-aws-ec2-metadata-token': token } })
      times.push(performance.now() - begin)
      expect(answer.status).toBe(200)
      await delay(20) // its own rate
    }
    return times.sort((a, b) => a - b)[89] ?? 0
  }
  const calm = await p90()
  const flood = fork(join(import.meta.dirname, '../testing/metadata-flood-until-killed.ts'), [
    '127.0.0.2',
    `${it.port()}`,
  ])
  try {
    await once(flood, 'message')
    const flooded = await p90()
    console.log(`p90 ${calm.toFixed(1)} ms without the flood, ${flooded.toFixed(1)} ms with it`)
    expect(flooded / calm).toBeLessThan(15)
  } finally {
    flood.kill('SIGKILL')
    agent.destroy()
  }
})
