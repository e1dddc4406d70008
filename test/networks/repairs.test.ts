import { mostRepairs, type Observed, type ObservedRepair } from '@berth/contract/hosts/agent-protocol.ts'
import { describe, expect, test } from 'vitest'
import { openEvents } from '../event-stream.ts'
import { scrape } from '../observability/metrics-text.ts'
import { type Stack, startStack, until } from '../stack.ts'

const settings = { agentSettings: { networkCheckMs: 20 } }
const damage = (detail: string) => ({ vpc_id: 'vpc-a' as const, object: 'tap' as const, detail })

/** The details of the events of repairs, oldest first. */
async function repaired(stack: Stack, count: number) {
  const stream = await openEvents(stack.port, '?after=0')
  const found = () => stream.events.filter(({ event }) => event === 'host.repaired').map(({ data }) => data)
  try {
    await stream.until(() => found().length >= count)
    return found()
  } finally {
    stream.drop()
  }
}

describe('what a host puts right of its networks', () => {
  test('is an event each, and counted', async () => {
    await using stack = await startStack(settings)
    await stack.createReady()
    stack.host.damageNetwork(damage('the first'))
    stack.host.damageNetwork({ vpc_id: '', object: 'host_ruleset', detail: 'the second' })
    const events = await repaired(stack, 2)
    expect(events.map(({ resource_id, detail }) => ({ resource_id, ...detail }))).toEqual([
      {
        resource_id: stack.hostId,
        number: 1,
        vpc_id: 'vpc-a',
        object: 'tap',
        detail: 'the first',
        repaired_at: expect.any(String),
      },
      {
        resource_id: stack.hostId,
        number: 2,
        vpc_id: '',
        object: 'host_ruleset',
        detail: 'the second',
        repaired_at: expect.any(String),
      },
    ])
    const { samples } = await scrape(stack)
    const counts = samples.filter(({ name, value }) => name === 'berth_agent_network_repairs_total' && value > 0)
    expect(counts.map(({ labels, value }) => [labels.object, value])).toEqual([
      ['tap', 1],
      ['host_ruleset', 1],
    ])
  })

  test('is told of once the server is back, also by an agent that was started anew, and once only', async () => {
    await using stack = await startStack(settings)
    await stack.createReady()
    stack.host.damageNetwork(damage('heard of'))
    await repaired(stack, 1)
    await stack.stopServer()
    stack.host.damageNetwork(damage('while the server is away'))
    await until(
      async () => stack.host.pendingDamages(),
      (pending) => pending === 0,
    )
    await stack.restartAgent()
    await stack.startServer()
    await repaired(stack, 2)
    stack.host.damageNetwork(damage('after both'))
    const events = await repaired(stack, 3)
    expect(events.map(({ detail }) => [detail.number, detail.detail])).toEqual([
      [1, 'heard of'],
      [2, 'while the server is away'],
      [3, 'after both'],
    ])
  })
})

describe('a report of repairs', () => {
  const repair = (number: number): ObservedRepair => ({ number, at: 1_700_000_000_000, ...damage(`number ${number}`) })
  const report = (sequence: number, network_repairs: unknown): Omit<Observed, 'network_repairs'> & object => ({
    agent_session: Date.now() + 60_000,
    sequence,
    revision: 0,
    agent_version: 'test',
    hostname: 'test',
    hypervisor: 'simulated',
    accelerator: 'none',
    accelerator_reason: '',
    capacity: { vcpus: 10, memory_mb: 10_240, disk_gb: 100 },
    images: [],
    instances: [],
    ...{ network_repairs },
  })
  const post = async (stack: Stack, sequence: number, repairs: unknown) =>
    (await stack.agentApi('POST', '/v1/agent/observed', report(sequence, repairs))).status

  test('that comes again, with others behind, makes events of the others alone', async () => {
    await using stack = await startStack({ agent: false })
    expect(await post(stack, 1, [repair(1), repair(2)])).toBe(204)
    expect(await post(stack, 2, [repair(1), repair(2), repair(3)])).toBe(204)
    await stack.restartServer()
    expect(await post(stack, 3, [repair(3), repair(5), repair(4)])).toBe(204)
    const events = await repaired(stack, 5)
    expect(events.map(({ detail }) => detail.number)).toEqual([1, 2, 3, 4, 5])
    expect(events[0]?.detail.repaired_at).toBe('2023-11-14T22:13:20Z')
  })

  test('is refused when it has too many, or what is none', async () => {
    await using stack = await startStack({ agent: false })
    const many = Array.from({ length: mostRepairs + 1 }, (_, i) => repair(i + 1))
    for (const repairs of [
      many,
      [{ ...repair(1), number: 0 }],
      [{ ...repair(1), object: 'moon' }],
      [{ ...repair(1), detail: 'x'.repeat(501) }],
      [{ ...repair(1), vpc_id: '../vpc' }],
      [{ ...repair(1), more: 1 }],
      'none',
    ]) {
      expect(await post(stack, 1, repairs)).toBe(422)
    }
    expect(await post(stack, 1, many.slice(1))).toBe(204)
  })
})

test('a machine whose tap was removed under it says so, until it is rebooted', async () => {
  await using stack = await startStack(settings)
  const { id } = await stack.createReady()
  const network = async () => (await stack.get(id)).status.conditions.find(({ type }) => type === 'NetworkReady')
  stack.host.loseTap(id)
  const lost = await until(network, (condition) => condition?.status === 'false')
  expect(lost).toMatchObject({ reason: 'tap_lost', message: expect.stringContaining('`reboot`') })
  expect((await stack.get(id)).status.state).toBe('running')
  await stack.ended(await stack.act(id, 'reboot'))
  await until(network, (condition) => condition?.status === 'true')
})
