import { connect } from 'node:net'
import type { Instance } from '@berth/contract/instances/instances.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type RequestHeaders, type Stack, startStack } from '../stack.ts'

let stack: Stack
let existing: string
beforeAll(async () => {
  stack = await startStack({ agent: false })
  existing = (await stack.create()).id
})
afterAll(() => stack.close())

async function expectProblem(method: string, path: string, status: number | number[], code?: string, body?: unknown) {
  const answer = await stack.api(method, path, body)
  expect([status].flat(), `${method} ${path}: ${answer.text}`).toContain(answer.status)
  expect(answer.headers['content-type'], `${method} ${path}`).toBe('application/problem+json')
  if (code !== undefined) expect(answer.body.code).toBe(code)
  return answer
}

describe('paths', () => {
  const unknown = 'inst-00000000000000000000'
  const tricks = [
    '..%2f..',
    '..%2F..%2Fetc%2Fpasswd',
    '%2e%2e',
    '%2e%2e%2f',
    'inst-x%00',
    `${unknown}%00`,
    `${unknown}%0a`,
    `${unknown}%20`,
    'INST-00000000000000000000',
    'inst_1',
    '%F0%9F%92%A9',
    "'%20or%201=1--",
    '*',
    '~',
    '$ref',
    '__proto__',
    'constructor',
    'null',
    'a'.repeat(64),
    'a'.repeat(600),
    'a'.repeat(9000),
  ]
  test.each(tricks)('an id like %s is 400, 404 or, when it is very long, 414', async (id) => {
    for (const [method, path] of [
      ['GET', `/v1/instances/${id}`],
      ['DELETE', `/v1/instances/${id}`],
      ['GET', `/v1/instances/${id}/console-log`],
      ['GET', `/v1/operations/${id}`],
      ['GET', `/v1/vpcs/${id}`],
      ['DELETE', `/v1/ssh-keys/${id}`],
      ['GET', `/v1/public-ips/${id}`],
      ['DELETE', `/v1/public-ips/${id}`],
      ['GET', `/v1/images/${id}`],
      ['GET', `/v1/instance-types/${id}`],
      ['GET', `/v1/hosts/${id}`],
    ] as const) {
      await expectProblem(method, path, [400, 404, 414])
    }
    await expectProblem('POST', `/v1/instances/${id}/stop`, [400, 404, 414], undefined, {})
  })

  test.each(['%', '%zz', '%c0%ae', '%ff', 'inst-%u0041'])('a path that cannot be decoded (%s) is 400', async (id) => {
    await expectProblem('GET', `/v1/instances/${id}`, 400, 'invalid_path')
  })

  test('an id that nobody has is 404', async () => {
    for (const [plural, id] of [
      ['instances', unknown],
      ['operations', 'op-00000000000000000000'],
      ['vpcs', 'vpc-none'],
      ['subnets', 'subnet-none'],
      ['security-groups', 'sg-none'],
      ['ssh-keys', 'key-none'],
      ['public-ips', 'pip-none'],
      ['images', 'none'],
      ['instance-types', 'none'],
      ['hosts', 'host-00000000000000000000'],
    ] as const) {
      await expectProblem('GET', `/v1/${plural}/${id}`, 404, 'not_found')
    }
  })

  test('a route that does not exist is 404, also a method of one that does', async () => {
    for (const [method, path] of [
      ['GET', '/v1'],
      ['GET', '/v2/instances'],
      ['GET', '/v1/instance'],
      ['GET', `/v1/instances/${unknown}/secrets`],
      ['PUT', '/v1/instances'],
      ['DELETE', '/v1/instances'],
      ['POST', `/v1/instances/${unknown}/pause`],
      ['OPTIONS', '/v1/instances'],
    ] as const) {
      await expectProblem(method, path, 404, 'route_not_found')
    }
  })
})

test('a method that needs a content type and has none is 400', async () => {
  await expectProblem('QUERY', '/v1/instances', 400, 'invalid_request')
})

test('an Expect that is not known is ignored', async () => {
  const answer = await stack.api('GET', '/healthz', undefined, { expect: 'nonsense' })
  expect(answer.status).toBe(200)
})

describe('queries', () => {
  test.each([
    'limit=0',
    'limit=-1',
    'limit=abc',
    'limit=1.5',
    'limit=1001',
    'limit=',
    'limit=1&limit=2',
    'limit=99999999999999999999',
    'state=paused',
    'state=',
    'state=running&state=stopped',
    'cursor=nonsense',
    'frobnicate=1',
    'Limit=1',
    'limits=1',
    '__proto__=1',
    'constructor=1',
    `name=${'a'.repeat(64)}`,
  ])('a list with ?%s is 400', async (query) => {
    await expectProblem('GET', `/v1/instances?${query}`, 400, 'invalid_query')
  })

  test.each([
    'wait_for=x',
    'wait_for=',
    'wait_for=provisioning',
    'wait_for=running&timeout=-1',
    'wait_for=running&timeout=601',
    'wait_for=running&timeout=1.5',
    'wait_for=running&timeout=soon',
    'wait_for=running&wait_for=ready',
    'timeout=-1',
    'wait=5',
  ])('a read with ?%s is 400', async (query) => {
    await expectProblem('GET', `/v1/instances/${existing}?${query}`, 400, 'invalid_query')
  })

  test('a query for a route that has none is 400, and nothing happens', async () => {
    const body = { spec: { type: 'micro', image: 'micro' } }
    await expectProblem('POST', '/v1/instances?dryrun=true', 400, 'invalid_query', body)
    await expectProblem('GET', '/v1/vpcs?limits=1', 400, 'invalid_query')
    await expectProblem('DELETE', '/v1/vpcs/vpc-none?force=true', 400, 'invalid_query')
    expect(await stack.list()).toHaveLength(1)
  })

  test('so are those of the other routes', async () => {
    for (const [method, path] of [
      ['GET', '/v1/operations/op-00000000000000000000?wait=-1'],
      ['GET', '/v1/operations/op-00000000000000000000?wait=601'],
      ['GET', '/v1/operations/op-00000000000000000000?wait_for=x'],
      ['GET', '/v1/operations?resource=x'],
      ['GET', `/v1/instances/${existing}/console-log?tail=0`],
      ['GET', `/v1/instances/${existing}/console-log?tail=x`],
      ['GET', `/v1/instances/${existing}/console-log?lines=1`],
      ['DELETE', `/v1/instances/${existing}?grace_seconds=-1`],
      ['DELETE', `/v1/instances/${existing}?grace_seconds=3601`],
      ['DELETE', `/v1/instances/${existing}?force=true`],
    ] as const) {
      await expectProblem(method, path, 400, 'invalid_query')
    }
    expect((await stack.get(existing)).metadata.generation).toBe(1)
  })
})

describe('bodies of actions', () => {
  test.each([
    ['stop', { grace_seconds: -1 }, '/grace_seconds'],
    ['stop', { grace_seconds: 3601 }, '/grace_seconds'],
    ['stop', { grace_seconds: '5' }, '/grace_seconds'],
    ['stop', { grace_seconds: 0.5 }, '/grace_seconds'],
    ['stop', { force: 'yes' }, '/force'],
    ['stop', { force: 1 }, '/force'],
    ['stop', { grace: 5 }, '/grace'],
    ['reboot', { hard: true }, '/hard'],
    ['reboot', { force: null }, '/force'],
    ['start', { force: true }, '/force'],
    ['stop', [], ''],
    ['start', [], ''],
    ['reboot', '"now"', ''],
    ['stop', 'null', ''],
  ])('%s with %j is 422', async (action, body, pointer) => {
    const answer = await expectProblem('POST', `/v1/instances/${existing}/${action}`, 422, 'validation_failed', body)
    expect(answer.body.errors.map((error) => error.pointer)).toEqual([pointer])
    expect((await stack.get(existing)).metadata.generation).toBe(1)
  })

  test('broken JSON is 400', async () => {
    await expectProblem('POST', `/v1/instances/${existing}/stop`, 400, 'invalid_json', '{')
  })
})

describe('requests that a web page could have sent are 403', () => {
  const foreign: [string, () => RequestHeaders][] = [
    ['another Host', () => ({ host: `evil.example:${stack.port}` })],
    ['a Host that is rebound', () => ({ host: 'evil.example' })],
    ['a Host that starts like ours', () => ({ host: `127.0.0.1.evil.example:${stack.port}` })],
    ['a Host with a user', () => ({ host: `127.0.0.1:${stack.port}@evil.example` })],
    ['a Host without its port', () => ({ host: '127.0.0.1' })],
    ['a Host with another port', () => ({ host: `127.0.0.1:${stack.port + 1}` })],
    ['another address', () => ({ host: `0.0.0.0:${stack.port}` })],
    ['a foreign Origin', () => ({ origin: 'https://evil.example' })],
    ['the null Origin', () => ({ origin: 'null' })],
    ['an Origin on another port', () => ({ origin: 'http://127.0.0.1:3000' })],
    ['an Origin with https', () => ({ origin: `https://127.0.0.1:${stack.port}` })],
    ['an Origin that starts like ours', () => ({ origin: `http://127.0.0.1:${stack.port}.evil.example` })],
    ['an empty Origin', () => ({ origin: '' })],
    ['Sec-Fetch-Site cross-site', () => ({ 'sec-fetch-site': 'cross-site' })],
  ]
  test.each(foreign)('%s', async (_name, headers) => {
    for (const [method, path, body] of [
      ['GET', '/v1/instances', undefined],
      ['POST', '/v1/instances', { spec: { type: 'micro', image: 'micro' } }],
      ['DELETE', `/v1/instances/${existing}`, undefined],
      ['GET', '/openapi.json', undefined],
      ['GET', '/no-such-route', undefined],
    ] as const) {
      const answer = await stack.api(method, path, body, headers())
      expect({ path, status: answer.status, code: answer.body.code }).toEqual({
        path,
        status: 403,
        code: 'forbidden_origin',
      })
      expect(answer.headers['content-type']).toBe('application/problem+json')
      expect(Object.keys(answer.headers).filter((name) => name.startsWith('access-control'))).toEqual([])
    }
    expect(await stack.list()).toHaveLength(1)
  })

  test('our own names, and our own pages, are let in', async () => {
    for (const name of ['127.0.0.1', 'localhost', 'LOCALHOST', '[::1]']) {
      const host = `${name}:${stack.port}`
      for (const headers of [{ host }, { host, origin: `http://${host}` }, { host, 'sec-fetch-site': 'same-origin' }]) {
        expect((await stack.api('GET', '/v1/instances', undefined, headers)).status, JSON.stringify(headers)).toBe(200)
      }
    }
  })
})

describe('requests that are hardly HTTP', () => {
  /** Sends bytes as they are; gives what came back until the connection was closed. */
  const raw = (text: string) =>
    new Promise<string>((resolve, reject) => {
      const socket = connect(stack.port, '127.0.0.1', () => socket.write(text))
      let received = ''
      socket.setEncoding('utf8')
      socket.on('data', (data: string) => {
        received += data
      })
      socket.on('error', reject)
      socket.on('close', () => resolve(received))
    })

  test('headers that are too large are answered with a problem document', async () => {
    const answer = await raw(
      `GET /v1/instances HTTP/1.1\r\nHost: 127.0.0.1:${stack.port}\r\nX-A: ${'a'.repeat(40_000)}\r\n\r\n`,
    )
    expect(answer).toMatch(/^HTTP\/1\.1 431 /)
    expect(answer).toMatch(/content-type: application\/problem\+json/i)
    expect(answer).toContain('"code":"header_too_large"')
  })

  test('nonsense is answered with 400 and a problem document', async () => {
    const answer = await raw('NONSENSE\r\n\r\n')
    expect(answer).toMatch(/^HTTP\/1\.1 400 /)
    const [, id] = answer.match(/^x-request-id: (req-[0-9a-f]{20})\r$/m) ?? []
    expect(answer).toContain(`"request_id":"${id}"`)
    expect(answer).toMatch(/content-type: application\/problem\+json/i)
  })

  test('a request without a Host is refused', async () => {
    expect(await raw('GET /v1/instances HTTP/1.1\r\nConnection: close\r\n\r\n')).toMatch(/^HTTP\/1\.1 40[03] /)
    expect(await raw('GET /v1/instances HTTP/1.0\r\n\r\n')).toMatch(/^HTTP\/1\.1 403 /)
  })

  test('the server still serves', async () => {
    expect((await stack.api<Instance>('GET', `/v1/instances/${existing}`)).status).toBe(200)
  })
})
