import type { InstanceCreated } from '@berth/contract/instances/instances.ts'
import type { Problem } from '@berth/contract/problem.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Answer, type Stack, startStack } from '../stack.ts'

let stack: Stack
beforeAll(async () => {
  stack = await startStack({ agent: false })
})
afterAll(() => stack.close())

/** Send a body to the create, and see that the server serves others after it. */
async function post(body: string | Buffer): Promise<Answer<Problem>> {
  const answer = await stack.api('POST', '/v1/instances', body)
  expect((await stack.api('GET', '/healthz')).status).toBe(200)
  return answer
}

/** An answer stays small, whatever was sent. */
function expectBounded(answer: Answer<Problem>): void {
  expect(answer.body.errors.length).toBeLessThanOrEqual(100)
  expect(answer.text.length).toBeLessThan(100_000)
}

describe('a document that is nested too deep is 422', () => {
  const nested = (open: string, inner: string, close: string, levels: number) =>
    open.repeat(levels) + inner + close.repeat(levels)

  test.each([
    ['arrays', nested('[', '', ']', 100_000)],
    ['objects', nested('{"a":', '1', '}', 100_000)],
    ['both', nested('{"spec":[', '1', ']}', 50_000)],
    ['a known field', `{"spec":{"type":"micro","image":"micro","ssh_key_ids":${nested('[', '', ']', 100_000)}}}`],
    ['labels', `{"metadata":{"labels":${nested('{"a":', '1', '}', 100_000)}}}`],
    [
      'two items that would be compared',
      `{"spec":{"ssh_key_ids":[${nested('[', '', ']', 50_000)},${nested('[', '', ']', 50_000)}]}}`,
    ],
  ])('%s', async (_name, body) => {
    const answer = await post(body)
    expect({ status: answer.status, code: answer.body.code }).toEqual({ status: 422, code: 'validation_failed' })
    expect(answer.body.errors).toEqual([{ pointer: '', message: 'is nested deeper than 32 levels' }])
  })

  test('32 levels are looked at, whatever brackets stand in texts', async () => {
    const brackets = JSON.stringify(`${'['.repeat(100)}\\"{{`)
    const answer = await post(`{"a":${nested('[', brackets, ']', 31)}}`)
    expect(answer.status).toBe(422)
    expect(answer.body.errors.map((error) => error.pointer)).toContain('/a')
  })
})

describe('very many values', () => {
  const keys = (count: number, name: (at: number) => string = (at) => `key${at}`) =>
    Object.fromEntries(Array.from({ length: count }, (_, at) => [name(at), 'v']))

  test('more than 10,000 of them are 422', async () => {
    for (const body of [
      keys(50_000),
      { metadata: { labels: keys(50_000) } },
      { spec: { ssh_key_ids: numbers(150_000) } },
    ]) {
      const answer = await post(JSON.stringify(body))
      expect({ status: answer.status, code: answer.body.code }).toEqual({ status: 422, code: 'validation_failed' })
    }
  })

  test.each([
    ['unknown keys', keys(9000)],
    ['unknown keys that start alike', keys(4000, (at) => `${'x'.repeat(200)}${at}`)],
    ['labels', { metadata: { labels: keys(9000) } }],
    ['labels that are not allowed', { metadata: { labels: keys(9000, (at) => `!${at}`) } }],
    ['references', { spec: { type: 'micro', image: 'micro', ssh_key_ids: numbers(9000).map((n) => `key-${n}`) } }],
    ['references of a wrong type', { spec: { type: 'micro', image: 'micro', ssh_key_ids: numbers(9000) } }],
    ['references that are objects', { spec: { ssh_key_ids: numbers(4000).map((n) => ({ n })) } }],
  ])('up to there they are judged, in a bounded answer: %s', async (_name, body) => {
    const answer = await post(JSON.stringify(body))
    expect(answer.status).toBe(422)
    expect(answer.body.errors.length).toBeGreaterThan(0)
    expectBounded(answer)
  })

  test('one item twice is still found among them', async () => {
    const spec = { type: 'micro', image: 'micro', ssh_key_ids: ['key-a', 'key-b', 'key-a'] }
    const answer = await post(JSON.stringify({ spec }))
    expect(answer.status).toBe(422)
    expect(answer.body.errors).toContainEqual({
      pointer: '/spec/ssh_key_ids',
      message: 'must not have duplicate items',
    })
  })

  function numbers(count: number): number[] {
    return Array.from({ length: count }, (_, at) => at)
  }
})

test('of a key that stands twice the last counts, however it is written and how often', async () => {
  for (const twice of [
    '"type":"cx51","type":"micro"',
    '"type":"cx51","\\u0074ype":"micro"',
    `${'"type":"cx51",'.repeat(5000)}"type":"micro"`,
  ]) {
    const answer = await stack.api<InstanceCreated>('POST', '/v1/instances', `{"spec":{${twice},"image":"micro"}}`)
    expect(answer.status, answer.text).toBe(201)
    expect(answer.body.spec.type).toBe('micro')
  }
})

describe('broken documents stay 400', () => {
  test.each([
    '"',
    '"\\',
    '{"a',
    '{"a":',
    '{"\\u00zz":1}',
    '[1,]',
    '{,}',
    ']',
    '}}',
    '{"a":1}}',
    '\\"',
    ',,,',
    '{"a" "b"}',
  ])('%s', async (body) => {
    expect(await post(body)).toMatchObject({ status: 400, body: { code: 'invalid_json' } })
  })
})

describe('the size of a body', () => {
  test('over 1 MiB it is 413, announced or not', async () => {
    const large = Buffer.alloc(1024 * 1024 + 1, ' ')
    expect(await post(large)).toMatchObject({ status: 413, body: { code: 'body_too_large' } })
    const chunked = { 'content-length': null, 'transfer-encoding': 'chunked' }
    expect(await stack.api('POST', '/v1/instances', large, chunked)).toMatchObject({ status: 413 })
  })

  test('just 1 MiB is read', async () => {
    const document = Buffer.from(JSON.stringify({ spec: { type: 'micro', image: 'micro' } }))
    const padded = Buffer.concat([document, Buffer.alloc(1024 * 1024 - document.length, ' ')])
    expect((await post(padded)).status).toBe(201)
  })
})
