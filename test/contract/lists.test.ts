import type { Instance, InstanceList } from '@berth/contract/instances/instances.ts'
import { expect, test } from 'vitest'
import { type Stack, startStack } from '../stack.ts'

async function page(stack: Stack, query: string): Promise<InstanceList> {
  const { status, body, text } = await stack.api<InstanceList>('GET', `/v1/instances${query}`)
  if (status !== 200) throw new Error(text)
  return body
}

const ids = (instances: readonly Instance[]) => instances.map((instance) => instance.id)

test('pages hold each instance once, oldest first, and the last has no cursor', async () => {
  await using stack = await startStack({ agent: false })
  const made = await Promise.all(Array.from({ length: 7 }, () => stack.create()))
  const expected = made.map((instance) => instance.id).sort()
  const first = await page(stack, '?limit=3')
  expect(Object.keys(first).sort()).toEqual(['items', 'next_cursor'])
  const second = await page(stack, `?limit=3&cursor=${first.next_cursor}`)
  const third = await page(stack, `?limit=3&cursor=${second.next_cursor}`)
  expect(ids([...first.items, ...second.items, ...third.items])).toEqual(expected)
  expect(third).not.toHaveProperty('next_cursor')
})

test('a page that holds exactly the rest has no cursor', async () => {
  await using stack = await startStack({ agent: false })
  for (let i = 0; i < 4; i++) await stack.create()
  const first = await page(stack, '?limit=2')
  const second = await page(stack, `?limit=2&cursor=${first.next_cursor}`)
  expect(second.items).toHaveLength(2)
  expect(second).not.toHaveProperty('next_cursor')
  expect(await page(stack, '?limit=4')).not.toHaveProperty('next_cursor')
})

test('what is made or deleted while a list is paged neither doubles nor hides another', async () => {
  await using stack = await startStack({ agent: false })
  const there: string[] = []
  for (let i = 0; i < 6; i++) there.push((await stack.create()).id)
  const seen: string[] = []
  let cursor = ''
  do {
    const [got] = await Promise.all([page(stack, `?limit=2${cursor}`), stack.create()])
    seen.push(...ids(got.items))
    // the one the cursor stands on may go
    const last = got.items.at(-1)
    if (last !== undefined && seen.length < 6) await stack.delete(last.id)
    cursor = got.next_cursor === undefined ? '' : `&cursor=${got.next_cursor}`
    if (seen.length > 30) break
  } while (cursor !== '')
  expect(new Set(seen).size).toBe(seen.length)
  expect(seen.slice(0, 6)).toEqual(there)
})

test('a cursor goes only with the filters it was made for', async () => {
  await using stack = await startStack({ agent: false })
  for (let i = 0; i < 3; i++) await stack.create({}, { name: 'a' })
  const { next_cursor: cursor = '' } = await page(stack, '?limit=1&name=a')
  expect((await page(stack, `?limit=2&name=a&cursor=${cursor}`)).items).toHaveLength(2)
  for (const query of [
    `?cursor=${cursor}`,
    `?name=b&cursor=${cursor}`,
    `?name=a&state=running&cursor=${cursor}`,
    `?name=a&cursor=${cursor.slice(1)}`,
    '?cursor=%7B%7D',
    '?cursor=bnVsbA', // null
    '?cursor=',
    `?cursor=${'A'.repeat(513)}`,
    `?name=a&cursor=${Buffer.from('["x"]').toString('base64url')}`,
  ]) {
    const { status, body } = await stack.api('GET', `/v1/instances${query}`)
    expect({ query, status, code: body.code }).toEqual({ query, status: 400, code: 'invalid_query' })
  }
})

test('the state filter gives exactly the instances in that state, also over pages', async () => {
  await using stack = await startStack()
  const stopped: string[] = []
  const running: string[] = []
  for (let i = 0; i < 3; i++) {
    running.push((await stack.createReady()).id)
    const { id } = await stack.createReady()
    await stack.ended(await stack.act(id, 'stop'))
    stopped.push(id)
  }
  const release = stack.hold('image')
  const provisioning = await stack.create()
  expect(ids((await page(stack, '?state=running')).items)).toEqual(running)
  expect(ids((await page(stack, '?state=stopped')).items)).toEqual(stopped)
  expect(ids((await page(stack, '?state=provisioning')).items)).toEqual([provisioning.id])
  expect((await page(stack, '?state=stopping')).items).toEqual([])
  expect((await page(stack, '?state=terminated')).items).toEqual([])

  const first = await page(stack, '?state=stopped&limit=2')
  const second = await page(stack, `?state=stopped&limit=2&cursor=${first.next_cursor}`)
  expect(ids([...first.items, ...second.items])).toEqual(stopped)
  expect(second).not.toHaveProperty('next_cursor')
  release()
})

test('the name filter compares the whole name', async () => {
  await using stack = await startStack({ agent: false })
  const a = await stack.create({}, { name: 'web' })
  await stack.create({}, { name: 'web-2' })
  expect(ids((await page(stack, '?name=web')).items)).toEqual([a.id])
  expect((await page(stack, '?name=we%25')).items).toEqual([])
  expect((await page(stack, `?name=${a.id}`)).items).toEqual([])
})

test('every other resource lists its items too', async () => {
  await using stack = await startStack({ agent: false, publicPools: [{ name: 'default', cidr: '203.0.113.0/29' }] })
  await stack.ensureExamples()
  await stack.api('POST', '/v1/public-ips', { id: 'pip-a' })
  for (const [plural, expected] of [
    ['vpcs', ['vpc-abc123']],
    ['subnets', ['subnet-def456']],
    ['security-groups', ['sg-ssh', 'sg-web']],
    ['ssh-keys', ['key-001']],
    ['public-ips', ['pip-a']],
    ['images', ['micro', 'ubuntu-22.04']],
    ['instance-types', ['cx11', 'cx21', 'cx31', 'cx41', 'cx51', 'micro']],
    ['hosts', [stack.hostId, stack.otherHost.hostId].sort()],
  ] as const) {
    const { status, body } = await stack.api<{ items: { id: string }[] }>('GET', `/v1/${plural}`)
    expect({ plural, status, ids: body.items.map((item) => item.id) }).toEqual({ plural, status: 200, ids: expected })
    const one = await stack.api('GET', `/v1/${plural}/${expected[0]}`)
    expect({ plural, status: one.status, body: one.body }).toEqual({ plural, status: 200, body: body.items[0] })
  }
})
