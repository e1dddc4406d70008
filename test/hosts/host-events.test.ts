import type { Host } from '@berth/contract/hosts/hosts.ts'
import { newId } from '@berth/contract/ids.ts'
import { findHost, insertHostIfAbsent, updateHostReport } from '@berth/server/store/hosts/hosts.ts'
import { Store } from '@berth/server/store/store.ts'
import { describe, expect, test } from 'vitest'
import { type EventStream, openEvents } from '../event-stream.ts'
import { Scrape } from '../observability/metrics-text.ts'
import { type Stack, startStack, TestClock, until } from '../stack.ts'

const minuteMs = 60_000

let sequence = 0

async function report(stack: Stack): Promise<void> {
  const { status, text } = await stack.agentApi('POST', '/v1/agent/observed', {
    ...{ agent_session: 1, sequence: ++sequence, revision: 0, agent_version: 'test', hostname: 'test' },
    ...{ hypervisor: 'simulated', accelerator: 'none', accelerator_reason: '' },
    capacity: { vcpus: 8, memory_mb: 8192, disk_gb: 100 },
    images: [],
    instances: [],
  })
  if (status !== 204) throw new Error(text)
}

const state = async (stack: Stack) => (await stack.hostDocument()).status.state

/** The states that the events of hosts tell, once everything that two passes of the controllers may tell has come. */
async function told(stack: Stack, stream: EventStream): Promise<string[]> {
  for (let pass = 0; pass < 2; pass++) await passed(stack)
  const { body } = await stack.api<{ id: string }>('POST', '/v1/vpcs', { spec: { cidr: '10.0.0.0/16' } })
  await stream.until(() => stream.events.some(({ data }) => data.resource_id === body.id))
  return stream.events
    .filter(({ event }) => event.startsWith('host.'))
    .map(({ event, data }) => `${event} ${data.resource_id === stack.hostId ? 'it' : 'other'} ${data.detail.state}`)
}

/** Wait until the retention controller has begun a pass after now and ended it. */
async function passed(stack: Stack): Promise<void> {
  const count = () => figure(stack, 'berth_controller_pass_duration_seconds_count', { controller: 'retention' })
  const before = await count()
  await until(count, (passes) => passes >= before + 2)
}

describe('a host that falls silent', () => {
  test('is told once when it counts as unreachable, and once when it is back', async () => {
    const clock = new TestClock()
    await using stack = await startStack({ agent: false, now: clock.now })
    await report(stack)
    const stream = await openEvents(stack.port)
    clock.advance(minuteMs - 5000)
    expect([await state(stack), await told(stack, stream)]).toEqual(['ready', []])
    clock.advance(5000)
    const fallen = ['host.updated it unreachable']
    expect([await state(stack), await told(stack, stream)]).toEqual(['unreachable', fallen])
    clock.advance(60 * minuteMs)
    expect(await told(stack, stream)).toEqual(fallen)
    await report(stack)
    await report(stack)
    const returned = [...fallen, 'host.updated it ready']
    expect([await state(stack), await told(stack, stream)]).toEqual(['ready', returned])
    clock.advance(minuteMs)
    expect(await told(stack, stream)).toEqual([...returned, 'host.updated it unreachable'])
    stream.drop()
  })

  test('is not told again by the next server, which tells that it is back', async () => {
    const clock = new TestClock()
    await using stack = await startStack({ agent: false, now: clock.now })
    await report(stack)
    clock.advance(minuteMs)
    await passed(stack)
    await stack.restartServer()
    const stream = await openEvents(stack.port, '?after=0')
    clock.advance(5 * minuteMs)
    const all = await told(stack, stream)
    expect(all.filter((line) => line.endsWith('unreachable'))).toEqual(['host.updated it unreachable'])
    await report(stack)
    expect(await told(stack, stream)).toEqual([...all, 'host.updated it ready'])
    stream.drop()
  })

  test('while there is no server is told a minute after the next one started, and not at all when it is back by then', async () => {
    const clock = new TestClock()
    await using stack = await startStack({ agent: false, now: clock.now })
    await report(stack)
    await stack.stopServer()
    clock.advance(10 * minuteMs)
    await stack.startServer()
    const stream = await openEvents(stack.port)
    clock.advance(minuteMs / 2)
    expect(await told(stack, stream)).toEqual([])
    await report(stack)
    clock.advance(minuteMs / 2)
    expect(await told(stack, stream)).toEqual([])
    clock.advance(minuteMs / 2)
    expect(await told(stack, stream)).toEqual(['host.updated it unreachable'])
    stream.drop()
  })

  test('with a thousand others is one event a host, in a few commits, and none at a restart of the server', async () => {
    const clock = new TestClock()
    await using stack = await startStack({ agent: false, now: clock.now })
    await stack.stopServer()
    await addHosts(stack, 1000, clock.now())
    await stack.startServer()
    const stream = await openEvents(stack.port)
    expect(await told(stack, stream)).toEqual([])
    const commits = await commitsOf(stack)
    clock.advance(minuteMs)
    await stream.until(() => stream.events.filter(({ event }) => event === 'host.updated').length === 1000)
    await passed(stack)
    expect((await commitsOf(stack)) - commits).toBeLessThanOrEqual(20)
    await stack.restartServer()
    const { body } = await stack.api<{ items: Host[] }>('GET', '/v1/hosts')
    expect(body.items.filter(({ status }) => status.state === 'unreachable').length).toBeGreaterThanOrEqual(1000)
    const later = await openEvents(stack.port, '?after=0')
    clock.advance(2 * minuteMs)
    const lines = await told(stack, later)
    expect(lines.filter((line) => line === 'host.updated other unreachable')).toHaveLength(1000)
    const ids = later.events
      .filter(({ data }) => data.detail.state === 'unreachable')
      .map(({ data }) => data.resource_id)
    expect(new Set(ids).size).toBe(1000)
    later.drop()
  })
})

/** Hosts that were heard of at a time, put into the database while no server runs. */
async function addHosts(stack: Stack, count: number, seenAt: number): Promise<void> {
  const store = await Store.open(stack.database)
  await store.write(async (tx) => {
    for (let i = 0; i < count; i++) {
      const id = newId('host', seenAt)
      await insertHostIfAbsent(tx, { id, name: id, created_at: seenAt })
      const host = await findHost(tx.db, id)
      if (host === null) throw new Error(`host ${id} was just made`)
      const { labels: _, ...columns } = host
      await updateHostReport(tx, host, { ...columns, last_seen_at: seenAt })
    }
  })
  await store.close()
}

async function figure(stack: Stack, name: string, labels: Record<string, string> = {}): Promise<number> {
  return new Scrape((await stack.api('GET', '/metrics')).text).value(name, labels)
}

const commitsOf = (stack: Stack) => figure(stack, 'berth_store_commit_duration_seconds_count')
