import { HostError } from '@berth/agent/host-driver.ts'
import type { NetworkExplanation } from '@berth/contract/networks/explain.ts'
import type { SecurityGroupRule } from '@berth/contract/networks/security-groups.ts'
import Database from 'better-sqlite3'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openEvents } from '../event-stream.ts'
import { scrape } from '../observability/metrics-text.ts'
import { type Stack, startStack, until } from '../stack.ts'

let stack: Stack
beforeAll(async () => {
  stack = await startStack({ agentSettings: { networkCheckMs: 20 } })
})
afterAll(() => stack.close())

const open: SecurityGroupRule = {
  direction: 'ingress',
  protocol: 'any',
  remote: { cidr: '10.0.0.0/8' },
  description: '',
}

/** Put what the API refuses into the database, as a version that did not refuse it has left it there. */
function spoil(group: string): void {
  const database = new Database(stack.databaseFile)
  try {
    const { changes } = database
      .prepare("update security_groups set rules = replace(rules, '10.0.0.0/8', '10.0.0.0/08') where id = ?")
      .run(group)
    expect(changes).toBe(1)
  } finally {
    database.close()
  }
}

const network = async (id: string) =>
  (await stack.get(id)).status.conditions.find(({ type }) => type === 'NetworkReady')

async function withoutRules(): Promise<number | undefined> {
  const { samples } = await scrape(stack)
  return samples.find(({ name }) => name === 'berth_agent_instances_without_rules')?.value
}

test('a rule that no host can load keeps nobody from coming or going, is told of, and is over when it is mended', async () => {
  await stack.api('POST', '/v1/security-groups', { id: 'sg-bad', spec: { rules: [open] } })
  spoil('sg-bad')
  const good = await stack.createReady({})
  const { id } = await stack.createReady({ security_groups: ['sg-bad'] })
  const told = await until(
    () => network(id),
    (condition) => condition?.status === 'false',
  )
  expect(told).toMatchObject({ reason: 'rules_not_in_force' })
  expect(told?.message).toMatch(/^sg-bad is not in force: rule 0: .*10\.0\.0\.0\/08 .*write 10\.0\.0\.0\/8/)
  expect((await network(good.id))?.status).toBe('true')
  expect(await withoutRules()).toBe(1)

  const question = { from: good.id, to: id, protocol: 'tcp', port: 80 }
  const explained = await stack.api<NetworkExplanation>('POST', '/v1/network/explain', question)
  expect(explained.body).toMatchObject({ allowed: false, notes: [expect.stringContaining('sg-bad is not in force')] })

  const mended = await stack.api('PATCH', '/v1/security-groups/sg-bad', { spec: { rules: [open] } })
  expect(mended.status).toBe(200)
  await until(
    () => network(id),
    (condition) => condition?.status === 'true',
  )
  expect(await withoutRules()).toBe(0)
  const after = await stack.api<NetworkExplanation>('POST', '/v1/network/explain', question)
  expect(after.body).toMatchObject({ allowed: true, notes: [] })
})

test('rules that go bad under a running machine are an event of it, and it can be deleted', async () => {
  await stack.api('POST', '/v1/security-groups', { id: 'sg-worse', spec: { rules: [open] } })
  const { id } = await stack.createReady({ security_groups: ['sg-worse'] })
  expect((await network(id))?.status).toBe('true')
  spoil('sg-worse')
  const stream = await openEvents(stack.port, `?resource_id=${id}`)
  const spoilt = await stack.create({ security_groups: ['sg-worse'] }) // so that its host hears of the group again
  await until(
    () => network(id),
    (condition) => condition?.reason === 'rules_not_in_force',
  )
  await stream.until(({ events }) => events.some(({ event }) => event === 'instance.updated'))
  stream.drop()
  for (const each of [id, spoilt.id]) await stack.delete(each)
})

test('groups that a host cannot give an instance are told of until it can, and are not counted as given', async () => {
  await stack.api('POST', '/v1/security-groups', { id: 'sg-late', spec: { rules: [open] } })
  const { id } = await stack.createReady({})
  stack.host.failNext(
    'network',
    new HostError('network_failed', 'no rule of sg-late can be loaded', { retryable: true }),
  )
  await stack.api('PATCH', `/v1/instances/${id}`, { spec: { security_groups: ['sg-late'] } })
  const told = await until(
    () => network(id),
    (condition) => condition?.status === 'false',
  )
  expect(told).toMatchObject({ reason: 'network_failed', message: 'no rule of sg-late can be loaded' })
  const behind = await stack.get(id)
  expect(behind.status.observed_generation).toBeLessThan(behind.metadata.generation)
  await until(
    () => network(id),
    (condition) => condition?.status === 'true',
  )
  const after = await until(
    () => stack.get(id),
    ({ status, metadata }) => status.observed_generation === metadata.generation,
  )
  expect(after.spec.security_groups).toEqual(['sg-late'])
})
