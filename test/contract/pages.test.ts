import type { InstanceList } from '@berth/contract/instances/instances.ts'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Stack, startStack, testPublicKey } from '../stack.ts'

interface List {
  items: { id: string }[]
  next_cursor?: string
}

/** One page; throws unless it is one. */
async function page(stack: Stack, path: string, query: Record<string, string>): Promise<List> {
  const { status, body, text } = await stack.api<List>('GET', `/v1/${path}?${new URLSearchParams(query)}`)
  if (status !== 200) throw new Error(`${path} ${JSON.stringify(query)}: ${text}`)
  return body
}

/** All pages of a list, each with its own limit; `between` runs beside each page. */
async function readPages(
  stack: Stack,
  path: string,
  query: Record<string, string>,
  limits: readonly number[],
  between: () => Promise<void> = async () => {},
): Promise<string[]> {
  const ids: string[] = []
  let cursor: string | undefined
  let turn = 0
  do {
    const limit = limits[turn++ % limits.length] ?? 1
    const more = cursor === undefined ? {} : { cursor }
    const [got] = await Promise.all([page(stack, path, { ...query, limit: String(limit), ...more }), between()])
    expect(got.items.length).toBeLessThanOrEqual(limit)
    ids.push(...got.items.map((item) => item.id))
    cursor = got.next_cursor
  } while (cursor !== undefined && turn < 500)
  return ids
}

const values = ['', 'x', 'y'] as const
const keys = ['env', 'team'] as const
type Labels = Record<string, string>

/** A selector as text, and what it means. */
const selector: fc.Arbitrary<{ text: string; holds: (labels: Labels) => boolean }> = fc.oneof(
  fc.constantFrom(...keys).map((key) => ({ text: key, holds: (labels: Labels) => key in labels })),
  fc.constantFrom(...keys).map((key) => ({ text: `!${key}`, holds: (labels: Labels) => !(key in labels) })),
  fc
    .tuple(fc.constantFrom(...keys), fc.constantFrom('=', '==', '!='), fc.constantFrom(...values))
    .map(([key, sign, value]) => ({
      text: `${key}${sign}${value}`,
      holds: (labels: Labels) => (labels[key] === value) === (sign !== '!='),
    })),
  fc
    .tuple(fc.constantFrom(...keys), fc.boolean(), fc.uniqueArray(fc.constantFrom('x', 'y', 'z'), { minLength: 1 }))
    .map(([key, negative, some]) => ({
      text: `${key} ${negative ? 'notin' : 'in'} (${some.join(', ')})`,
      holds: (labels: Labels) => (some as string[]).includes(labels[key] ?? '') !== negative,
    })),
)

const someLabels = fc.dictionary(fc.constantFrom(...keys), fc.constantFrom(...values), { noNullPrototype: true })

test('pages under writers hold each instance that was there throughout once, and none that does not match', async () => {
  await using stack = await startStack({ agent: false })
  const alive = new Map<string, Labels>()
  const ever = new Map<string, Labels>()
  const create = async (labels: Labels) => {
    const { id } = await stack.create({}, { labels })
    alive.set(id, labels)
    ever.set(id, labels)
  }
  await fc.assert(
    fc.asyncProperty(
      fc.array(someLabels, { minLength: 4, maxLength: 10 }),
      fc.array(selector, { maxLength: 2 }),
      fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 3 }),
      fc.array(fc.tuple(fc.boolean(), fc.nat(), someLabels), { maxLength: 8 }),
      async (more, selectors, limits, writes) => {
        await Promise.all(more.map(create))
        const before = new Map(alive)
        const pending = [...writes]
        const query: Record<string, string> = {}
        if (selectors.length > 0) query.label_selector = selectors.map(({ text }) => text).join(',')
        const seen = await readPages(stack, 'instances', query, limits, async () => {
          const next = pending.shift()
          if (next === undefined) return
          const [remove, which, labels] = next
          const victim = [...alive.keys()][which % alive.size]
          if (!remove || victim === undefined) return create(labels)
          alive.delete(victim)
          await stack.delete(victim)
        })
        const matches = (id: string) => selectors.every(({ holds }) => holds(ever.get(id) ?? {}))
        expect([...seen].sort()).toEqual(seen) // in order, and none twice:
        expect(new Set(seen).size).toBe(seen.length)
        expect(seen.filter((id) => !matches(id))).toEqual([])
        const throughout = [...before.keys()].filter((id) => alive.has(id) && matches(id))
        expect(throughout.filter((id) => !seen.includes(id))).toEqual([])
      },
    ),
    { numRuns: 20 },
  )
})

test('each filter narrows, together they narrow more, and what matches nothing is an empty list', async () => {
  await using stack = await startStack()
  await stack.ensureExamples()
  const other = { id: 'subnet-other', spec: { vpc_id: 'vpc-abc123', cidr: '10.0.2.0/24' } }
  await stack.api('POST', '/v1/subnets', other)
  const a = await stack.createReady({ subnet_id: 'subnet-def456' }, { name: 'web', labels: { env: 'x' } })
  const b = await stack.createReady({ subnet_id: 'subnet-other' }, { name: 'web', labels: { env: 'y' } })
  const c = await stack.createReady({}, { name: 'db', labels: { env: 'x' } })
  await stack.ended(await stack.act(c.id, 'stop'))
  await stack.api('PATCH', `/v1/hosts/${stack.hostId}`, { spec: { schedulable: false } })
  const d = await stack.create({}, { name: 'waiting' })
  for (const [query, expected] of [
    ['', [a, b, c, d]],
    [`host_id=${stack.hostId}`, [a, b, c]],
    [`host_id=${stack.otherHost.hostId}`, []],
    ['host_id=', []],
    ['vpc_id=vpc-abc123', [a, b]],
    ['vpc_id=vpc-default', [c, d]],
    ['subnet_id=subnet-other', [b]],
    ['subnet_id=subnet-none', []],
    ['name=web', [a, b]],
    ['name=', []],
    ['state=running', [a, b]],
    ['state=stopped', [c]],
    ['state=provisioning', [d]],
    ['label_selector=env=x', [a, c]],
    ['label_selector=env%3Dx&vpc_id=vpc-abc123', [a]],
    [`label_selector=env&state=stopped&host_id=${stack.hostId}&name=db`, [c]],
    ['label_selector=!env', [d]],
    ['label_selector=', [a, b, c, d]],
    ['label_selector=%20', [a, b, c, d]],
  ] as const) {
    const ids = (await stack.list(`?${query}`)).map((instance) => instance.id)
    expect({ query, ids }).toEqual({ query, ids: expected.map((instance) => instance.id) })
  }
  for (const query of [
    'state=on',
    'state=',
    'label_selector=a=b=c',
    'label_selector=,',
    'label_selector=a in',
    'label_selector=a in ()x',
    'label_selector=-!a',
    `label_selector=${'a,'.repeat(40)}a`,
    'limit=0',
    'limit=1001',
    'limit=x',
    'limit=1&limit=2',
    'unknown=1',
    `name=${'x'.repeat(64)}`,
  ]) {
    const { status, body } = await stack.api('GET', `/v1/instances?${query.replaceAll(' ', '%20')}`)
    expect({ query, status, code: body.code }).toEqual({ query, status: 400, code: 'invalid_query' })
  }
})

describe('every list', () => {
  test('has pages that give each item once, and a cursor that goes only with its filters', async () => {
    const publicPools = [{ name: 'default', cidr: '203.0.113.0/28' }]
    await using stack = await startStack({ agent: false, publicPools })
    await stack.ensureExamples()
    for (let i = 0; i < 3; i++) {
      await stack.create()
      await stack.api('POST', '/v1/vpcs', { spec: { cidr: '10.0.0.0/16' } })
      await stack.api('POST', '/v1/subnets', { spec: { vpc_id: 'vpc-abc123', cidr: `10.0.${i + 2}.0/24` } })
      await stack.api('POST', '/v1/security-groups', {})
      await stack.api('POST', '/v1/ssh-keys', { spec: { public_key: testPublicKey } })
      await stack.api('POST', '/v1/public-ips', {})
    }
    for (const [path, other] of [
      ['instances', { name: 'x' }],
      ['operations', { type: 'instance.create' }],
      ['vpcs', { label_selector: 'a' }],
      ['subnets', { vpc_id: 'vpc-abc123' }],
      ['security-groups', { name: 'x' }],
      ['ssh-keys', { name: 'x' }],
      ['public-ips', { pool: 'default' }],
      ['hosts', { name: 'x' }],
      ['images', null],
      ['instance-types', null],
    ] as const) {
      const whole = (await page(stack, path, {})).items.map((item) => item.id)
      expect({ path, more: whole.length >= 2 }).toEqual({ path, more: true })
      for (const limits of [[1], [2], [1, 2, 3]]) {
        expect({ path, ids: await readPages(stack, path, {}, limits) }).toEqual({ path, ids: whole })
      }
      const { next_cursor: cursor = '' } = await page(stack, path, { limit: '1' })
      const elsewhere = { ...other, cursor }
      const refused = [
        ...(other === null ? [] : [elsewhere]),
        ...[
          'x',
          'null',
          '[]',
          '[1,2]',
          '["a"]',
          '["a","b"]',
          '["a","T1PNoYwrqgwD","c"]x',
          '["\u0000","T1PNoYwrqgwD"]',
        ].map((text) => ({ cursor: Buffer.from(text).toString('base64url') })),
        { cursor: `${cursor.slice(1)}` },
        { cursor: '' },
      ]
      for (const query of refused) {
        const answer = await stack.api('GET', `/v1/${path}?${new URLSearchParams({ ...query })}`)
        expect({ path, query, status: answer.status, code: answer.body.code }).toEqual({
          path,
          query,
          status: 400,
          code: 'invalid_query',
        })
      }
    }
  })

  test('a cursor whose item is gone goes on behind it', async () => {
    await using stack = await startStack({ agent: false })
    const made: string[] = []
    for (let i = 0; i < 4; i++) {
      const { body } = await stack.api<{ id: string }>('POST', '/v1/vpcs', { spec: { cidr: '10.0.0.0/16' } })
      made.push(body.id)
    }
    const { next_cursor: cursor = '' } = await page(stack, 'vpcs', { limit: '2' })
    for (const id of made.slice(1, 3)) await stack.api('DELETE', `/v1/vpcs/${id}`)
    const rest = await page(stack, 'vpcs', { cursor })
    expect(rest).toEqual({ items: [expect.objectContaining({ id: made[3] })] })
  })

  test('of instances gives the same document as GET', async () => {
    await using stack = await startStack()
    const instance = await stack.createReady({}, { labels: { a: 'b' } })
    const { body } = await stack.api<InstanceList>('GET', '/v1/instances')
    expect(body.items).toEqual([await stack.get(instance.id)])
  })
})

test('an instance is the same text by its id, in a list and when it was waited for, and so after each change', async () => {
  await using stack = await startStack()
  const { id } = await stack.create()
  const text = async (path: string) => (await stack.api('GET', `/v1/instances${path}`)).text
  for (const name of ['first', 'second']) {
    await stack.api('PATCH', `/v1/instances/${id}`, { metadata: { name, labels: { app: name } } })
    const waited = await text(`/${id}?wait_for=ready`)
    expect(JSON.parse(waited).metadata.name).toBe(name)
    for (let again = 0; again < 2; again++) {
      expect(await text(`/${id}`)).toBe(waited)
      expect(await text('')).toBe(`{"items":[${waited}]}`)
      expect(await text('?label_selector=app')).toBe(`{"items":[${waited}]}`)
    }
  }
})

test('a list of images goes on behind one that was deleted meanwhile', async () => {
  await using stack = await startStack({ agent: false, images: [] })
  const spec = { source_url: 'https://images.example/x.img', sha256: 'a'.repeat(64), min_disk_gb: 1, default_user: 'u' }
  for (const id of ['a', 'b', 'c']) expect((await stack.api('POST', '/v1/images', { id, spec })).status).toBe(201)
  const first = await page(stack, 'images', { limit: '1' })
  expect(first.items.map(({ id }) => id)).toEqual(['a'])
  expect((await stack.api('DELETE', '/v1/images/a')).status).toBe(204)
  const rest = await page(stack, 'images', { cursor: first.next_cursor ?? '' })
  expect(rest.items.map(({ id }) => id)).toEqual(['b', 'c'])
})
