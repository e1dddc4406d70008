import { HostError } from '@berth/agent/host-driver.ts'
import type { Observed } from '@berth/contract/hosts/agent-protocol.ts'
import SqliteDatabase from 'better-sqlite3'
import { describe, expect, test } from 'vitest'
import { observedRunning } from '../observed.ts'
import { startStack, until } from '../stack.ts'
import { type Scrape, scrape } from './metrics-text.ts'

describe('requests', () => {
  test('are counted by method, route pattern and status, whatever ids and words are in them', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create()
    for (let i = 0; i < 3; i++) await stack.get(id)
    await stack.api('GET', '/v1/instances/inst-00000000000000000000')
    await stack.api('GET', '/some/where/else')
    await stack.api('GET', '/%ff')
    const { value, samples } = await scraped(stack)
    const count = 'berth_http_request_duration_seconds_count'
    expect(value(count, { method: 'GET', route: '/v1/instances/:id', status: '200' })).toBe(3)
    expect(value(count, { method: 'GET', route: '/v1/instances/:id', status: '404' })).toBe(1)
    expect(value(count, { method: 'POST', route: '/v1/instances', status: '201' })).toBe(1)
    expect(value(count, { method: 'GET', route: 'unmatched', status: '404' })).toBe(1)
    expect(value(count, { method: 'GET', route: 'unmatched', status: '400' })).toBe(1)
    const text = JSON.stringify(samples)
    expect(text).not.toContain(id)
    expect(text).not.toContain('some/where')
  })

  test('have buckets that rise to their count, and a sum of seconds', async () => {
    await using stack = await startStack({ agent: false })
    await stack.api('GET', '/healthz')
    const { samples, value } = await scraped(stack)
    const labels = { method: 'GET', route: '/healthz', status: '200' }
    const buckets = samples.filter(
      ({ name, labels: own }) => name === 'berth_http_request_duration_seconds_bucket' && own.route === '/healthz',
    )
    const counts = buckets.map((bucket) => bucket.value)
    expect(counts).toEqual([...counts].sort((a, b) => a - b))
    expect(buckets.at(-1)).toMatchObject({ labels: { le: '+Inf' }, value: 1 })
    expect(value('berth_http_request_duration_seconds_sum', labels)).toBeGreaterThan(0)
    expect(value('berth_http_request_duration_seconds_sum', labels)).toBeLessThan(10)
  })

  test('that wait are counted while they wait, and not among those that are answered at once', async () => {
    await using stack = await startStack()
    const release = stack.hold('start')
    const { id } = await stack.create()
    const waiting = stack.reach(id, 'running')
    // the scrape itself is in flight; a report of the host may be there a moment
    await until(
      () => scraped(stack),
      (now) => now.value('berth_http_held_requests', { kind: 'wait' }) === 1 && inFlight(now) === 1,
    )
    release()
    await waiting
    const after = await until(
      () => scraped(stack),
      ({ value }) => value('berth_http_held_requests', { kind: 'wait' }) === 0,
    )
    expect(after.value('berth_http_held_request_duration_seconds_count', { kind: 'wait' })).toBe(1)
    const byId = { method: 'GET', route: '/v1/instances/:id', status: '200' }
    expect(after.value('berth_http_request_duration_seconds_count', byId)).toBe(0)
    expect(after.value('berth_http_held_requests', { kind: 'host' })).toBe(1)
  })

  test('that their caller leaves are no longer counted as open', async () => {
    await using stack = await startStack()
    const leaving = new AbortController()
    const events = await fetch(`${stack.url}/v1/events`, { signal: leaving.signal })
    expect(events.status).toBe(200)
    expect((await scraped(stack)).value('berth_http_held_requests', { kind: 'events' })).toBe(1)
    leaving.abort()
    await until(
      () => scraped(stack),
      (now) => now.value('berth_http_held_requests', { kind: 'events' }) === 0 && inFlight(now) === 1,
    )
  })
})

const inFlight = ({ value }: Pick<Scrape, 'value'>) => value('berth_http_requests_in_flight')

describe('operations and instances', () => {
  test('are counted by type, outcome and step from their opening to their end', async () => {
    await using stack = await startStack()
    const release = stack.hold('image')
    const { id } = await stack.create({ vcpus: 2, memory_mb: 512, disk_gb: 3 })
    const during = await until(
      () => scraped(stack),
      ({ value }) => value('berth_hosts_reserved_vcpus', { state: 'ready' }) === 2,
    )
    expect(during.value('berth_operations_open', { type: 'instance.create' })).toBe(1)
    expect(during.value('berth_instances', { state: 'provisioning' })).toBe(1)
    expect(during.value('berth_hosts_reserved_memory_bytes', { state: 'ready' })).toBe(512 * 1024 ** 2)
    expect(during.value('berth_hosts_reserved_disk_bytes', { state: 'ready' })).toBe(3 * 1024 ** 3)
    expect(during.value('berth_hosts_capacity_vcpus', { state: 'ready' })).toBe(1000)
    expect(during.value('berth_hosts', { state: 'ready', schedulable: 'true' })).toBe(1)
    release()
    await stack.reach(id, 'running')
    await stack.ended(await stack.delete(id))
    const { value } = await scraped(stack)
    for (const type of ['instance.create', 'instance.delete']) {
      expect(value('berth_operations_opened_total', { type })).toBe(1)
      expect(value('berth_operation_duration_seconds_count', { type, outcome: 'succeeded' })).toBe(1)
      expect(value('berth_operations_open', { type })).toBe(0)
    }
    for (const step of ['schedule', 'image', 'disk', 'network', 'boot']) {
      const labels = { type: 'instance.create', step, outcome: 'succeeded' }
      expect(value('berth_operation_step_duration_seconds_count', labels), step).toBe(1)
    }
    expect(value('berth_instances', { state: 'terminated' })).toBe(1)
    expect(value('berth_instances', { state: 'provisioning' })).toBe(0)
    expect(value('berth_hosts_reserved_vcpus', { state: 'ready' })).toBe(0)
    expect(value('berth_events_written_total', { type: 'instance.created' })).toBe(1)
  })

  test('that nobody kept are not counted: a dry run opens no operation', async () => {
    await using stack = await startStack({ agent: false })
    const answer = await stack.api('POST', '/v1/instances?dry_run=true', { spec: { type: 'micro', image: 'micro' } })
    expect(answer.status).toBe(200)
    const { value } = await scraped(stack)
    expect(value('berth_operations_opened_total', { type: 'instance.create' })).toBe(0)
    expect(value('berth_events_written_total', { type: 'instance.created' })).toBe(0)
    expect(value('berth_store_writes_total', { outcome: 'rolled_back' })).toBe(1)
  })

  test('that wait for a host, and hosts that are cordoned, are counted as such', async () => {
    await using stack = await startStack()
    await until(
      () => stack.hostDocument(),
      (host) => host.status.state === 'ready',
    )
    const cordoned = await stack.api('PATCH', `/v1/hosts/${stack.hostId}`, { spec: { schedulable: false } })
    expect(cordoned.status).toBe(200)
    await stack.create()
    const { value } = await scraped(stack)
    expect(value('berth_instances_unplaced')).toBe(1)
    expect(value('berth_hosts', { state: 'ready', schedulable: 'false' })).toBe(1)
    expect(value('berth_hosts', { state: 'ready', schedulable: 'true' })).toBe(0)
  })
})

describe('the store', () => {
  test('counts a commit that was lost, and its writes', async () => {
    await using stack = await startStack({ agent: false })
    const before = await scraped(stack)
    const database = new SqliteDatabase(stack.databaseFile)
    database.exec(`create trigger spoil before insert on instances begin select raise(rollback, 'spoilt'); end`)
    database.close()
    const answer = await stack.api('POST', '/v1/instances', { spec: { type: 'micro', image: 'micro' } })
    expect(answer.status).toBe(500)
    const { value } = await scraped(stack)
    expect(value('berth_store_commit_failures_total')).toBe(before.value('berth_store_commit_failures_total') + 1)
    expect(value('berth_store_writes_total', { outcome: 'lost' })).toBe(1)
    expect(value('berth_store_writes_total', { outcome: 'committed' })).toBe(
      before.value('berth_store_writes_total', { outcome: 'committed' }),
    )
  })

  test('that cannot be read takes nothing from the metrics but what only it knows', async () => {
    await using stack = await startStack({ agent: false })
    await stack.create()
    expect((await scraped(stack)).value('berth_store_readable')).toBe(1)
    const database = new SqliteDatabase(stack.databaseFile)
    database.exec('alter table operations rename to lost')
    const without = await scraped(stack)
    expect(without.value('berth_store_readable')).toBe(0)
    for (const name of ['berth_instances', 'berth_instances_unplaced', 'berth_operations_open', 'berth_hosts']) {
      expect(without.samples.filter((sample) => sample.name === name)).toEqual([])
    }
    expect(without.value('berth_operations_opened_total', { type: 'instance.create' })).toBe(1)
    database.exec('alter table lost rename to operations')
    database.close()
    const again = await scraped(stack)
    expect(again.value('berth_store_readable')).toBe(1)
    expect(again.value('berth_instances', { state: 'provisioning' })).toBe(1)
  })
})

describe('hosts and agents', () => {
  test('reports are counted as accepted, stale or foreign', async () => {
    await using stack = await startStack({ agent: false })
    const send = (sequence: number, credential?: string, instances: Observed['instances'] = []) =>
      stack.agentApi('POST', '/v1/agent/observed', report(sequence, instances), credential)
    await send(1)
    await send(2)
    await send(2)
    await send(3, 'credential-of-nobody')
    await send(4, undefined, [observedRunning('inst-00000000000000000000')])
    const { value } = await scraped(stack)
    expect(value('berth_host_reports_total', { outcome: 'accepted' })).toBe(3)
    expect(value('berth_host_reports_total', { outcome: 'stale' })).toBe(1)
    expect(value('berth_host_reports_total', { outcome: 'foreign' })).toBe(1)
    expect(value('berth_host_report_foreign_entries_total')).toBe(1)
  })

  test('attempts that fail, acts and lost VMMs are counted', async () => {
    await using stack = await startStack()
    stack.host.failNext('disk', new HostError('disk_failed', 'no', { retryable: true, tryAgain: true }))
    const { id } = await stack.createReady()
    stack.host.vmmOf(id)?.die()
    await until(
      () => stack.get(id),
      (instance) => instance.status.state === 'running' && stack.host.vmmOf(id) !== null,
    )
    const { value } = await until(
      () => scraped(stack),
      (now) => now.value('berth_agent_instances', { power: 'running' }) === 1,
    )
    expect(value('berth_agent_step_failures_total', { step: 'disk' })).toBe(1)
    expect(value('berth_agent_vmms_lost_total', { cause: 'crash' })).toBe(1)
    expect(value('berth_agent_act_duration_seconds_count', { act: 'start', outcome: 'done' })).toBe(2)
    expect(value('berth_agent_step_duration_seconds_count', { step: 'disk', outcome: 'succeeded' })).toBe(2)
    expect(value('berth_agent_apply_duration_seconds_count')).toBeGreaterThan(0)
    expect(value('berth_agent_reports_total', { outcome: 'accepted' })).toBeGreaterThan(0)
    expect(value('berth_agent_last_report_timestamp_seconds')).toBeGreaterThan(1_700_000_000)
  })

  test('an agent that starts anew begins to count anew', async () => {
    await using stack = await startStack()
    await stack.createReady()
    await stack.restartAgent()
    const { value } = await scraped(stack)
    expect(value('berth_agent_step_duration_seconds_count', { step: 'disk', outcome: 'succeeded' })).toBe(0)
  })

  test('a controller that fails is counted and goes on', async () => {
    await using stack = await startStack({ agent: false })
    const database = new SqliteDatabase(stack.databaseFile)
    database.exec('alter table operations rename to lost')
    const labels = { controller: 'retention' }
    const failed = await until(
      () => scraped(stack),
      ({ value }) => value('berth_controller_pass_failures_total', labels) > 0,
    )
    database.exec('alter table lost rename to operations')
    database.close()
    const succeededAt = failed.value('berth_controller_last_success_timestamp_seconds', labels)
    await until(
      () => scraped(stack),
      ({ value }) => value('berth_controller_last_success_timestamp_seconds', labels) > succeededAt,
    )
  })
})

/** A scrape whose `value` may be taken out of it. */
async function scraped(stack: Parameters<typeof scrape>[0]) {
  const result = await scrape(stack)
  return { samples: result.samples, value: result.value.bind(result) }
}

function report(sequence: number, instances: Observed['instances']): Observed {
  return {
    agent_session: 1,
    sequence,
    revision: 0,
    agent_version: 'test',
    hostname: 'test',
    hypervisor: 'simulated',
    accelerator: 'none',
    accelerator_reason: '',
    capacity: { vcpus: 10, memory_mb: 10_240, disk_gb: 100 },
    images: [],
    instances,
  }
}
