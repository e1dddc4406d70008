import type { Host } from '@berth/contract/hosts/hosts.ts'
import type { InstanceCreated, InstanceDryRun } from '@berth/contract/instances/instances.ts'
import { Store } from '@berth/server/store/store.ts'
import { describe, expect, test } from 'vitest'
import { type Stack, startStack, until } from '../stack.ts'

const micro = { type: 'micro', image: 'micro' }

const cordon = (stack: Stack, schedulable: boolean) =>
  stack.api<Host>('PATCH', `/v1/hosts/${stack.hostId}`, { spec: { schedulable } })

const scheduled = async (stack: Stack, id: string) =>
  (await stack.get(id)).status.conditions.find((condition) => condition.type === 'Scheduled')

/** An instance once its refusal is known. */
const refusedInstance = (stack: Stack, id: string) =>
  until(
    () => scheduled(stack, id),
    (condition) => condition?.status === 'false',
  )

/** The rows of every table but those of hosts, whose reports come on their own. */
async function everything(stack: Stack): Promise<Record<string, unknown[]>> {
  const store = await Store.open(stack.database)
  const tables = [
    'events',
    'instances',
    'operations',
    'vpcs',
    'subnets',
    'subnet_addresses',
    'security_groups',
    'idempotency_keys',
  ] as const
  const rows: Record<string, unknown[]> = {}
  for (const table of tables) rows[table] = await store.read.selectFrom(table).selectAll().execute()
  await store.close()
  return rows
}

describe('a cordoned host', () => {
  test('is given nothing new; what runs there runs on, stops, starts and goes', async () => {
    await using stack = await startStack()
    const running = await stack.createReady()
    const answer = await cordon(stack, false)
    expect(answer.body.spec).toEqual({ schedulable: false })
    const waiting = await stack.create()
    expect(await refusedInstance(stack, waiting.id)).toMatchObject({
      status: 'false',
      reason: 'no_host_has_room',
      message: expect.stringContaining('cordoned: 1'),
    })
    expect((await stack.get(waiting.id)).status).toMatchObject({ state: 'provisioning', host_id: '', private_ip: '' })

    expect((await stack.get(running.id)).status.started_at).toBe(running.status.started_at)
    await stack.ended(await stack.act(running.id, 'stop'))
    await stack.ended(await stack.act(running.id, 'start'))
    expect((await stack.reach(running.id, 'ready')).status.host_id).toBe(stack.hostId)
    await stack.ended(await stack.delete(running.id))
    expect((await stack.operation(waiting.operation_id)).status).toBe('pending')
  })

  test('that takes work again is given at once what waits, in the order it came', async () => {
    await using stack = await startStack({ settings: { controllerPeriodMs: 600_000 } })
    await until(
      () => stack.hostDocument(),
      (host) => host.status.state === 'ready',
    )
    await cordon(stack, false)
    const waiting = [await stack.create(), await stack.create(), await stack.create()]
    for (const { id } of waiting) await refusedInstance(stack, id)
    await cordon(stack, true)
    for (const { id, operation_id: operationId } of waiting) {
      expect((await stack.reach(id, 'ready')).status.host_id).toBe(stack.hostId)
      expect((await stack.ended(operationId)).status).toBe('succeeded')
      expect(await scheduled(stack, id)).toMatchObject({ status: 'true', reason: '', message: '' })
    }
  })

  test('stays cordoned over a restart of server and agent', async () => {
    await using stack = await startStack()
    await cordon(stack, false)
    await stack.restartServer()
    await stack.restartAgent()
    await until(
      () => stack.hostDocument(),
      (host) => host.status.state === 'ready',
    )
    expect((await stack.hostDocument()).spec.schedulable).toBe(false)
    await refusedInstance(stack, (await stack.create()).id)
  })

  test('an instance that waits can be deleted, and one that is stopped does not come up later', async () => {
    await using stack = await startStack()
    await cordon(stack, false)
    const [deleted, stopped] = [await stack.create(), await stack.create()]
    await stack.ended(await stack.delete(deleted.id))
    expect((await stack.get(deleted.id)).status.state).toBe('terminated')
    expect((await stack.ended(await stack.act(stopped.id, 'stop'))).status).toBe('succeeded')
    await cordon(stack, true)
    expect((await stack.get(stopped.id)).status.state).toBe('stopped')
    await stack.ended(await stack.act(stopped.id, 'start'))
    await stack.reach(stopped.id, 'ready')
  })
})

describe('a dry run', () => {
  const dryRun = (stack: Stack, body: object = { spec: micro }, query = '?dry_run=true') =>
    stack.api<InstanceDryRun>('POST', `/v1/instances${query}`, body)

  test('says what would come of it and keeps nothing, not even the default network', async () => {
    await using stack = await startStack()
    await until(
      () => stack.hostDocument(),
      (host) => host.status.state === 'ready',
    )
    const before = await everything(stack)
    const { status, headers, body } = await dryRun(stack, {
      metadata: { name: 'web', labels: { a: 'b' } },
      spec: micro,
    })
    expect({ status, location: headers.location }).toEqual({ status: 200, location: undefined })
    expect(body).toMatchObject({
      id: '',
      metadata: { name: 'web', labels: { a: 'b' } },
      spec: { ...micro, vcpus: 1, memory_mb: 256, disk_gb: 2, vpc_id: 'vpc-default', subnet_id: 'subnet-default' },
      status: { state: 'provisioning', host_id: stack.hostId, private_ip: '10.64.0.4' },
      operation_id: '',
      placement: { host_id: stack.hostId, hosts: 1, refusals: [], message: '' },
    })
    expect(await everything(stack)).toEqual(before)
    expect(before.vpcs).toEqual([])
    // what it said comes true
    const real = await stack.createReady()
    expect(real.status).toMatchObject({ host_id: stack.hostId, private_ip: '10.64.0.4' })
    expect((await dryRun(stack)).body.status.private_ip).toBe('10.64.0.5')
  })

  test('says why there is no place now, with how many hosts refuse for what', async () => {
    await using stack = await startStack()
    await until(
      () => stack.hostDocument(),
      (host) => host.status.state === 'ready',
    )
    await cordon(stack, false)
    expect((await dryRun(stack)).body).toMatchObject({
      status: { host_id: '' },
      placement: { host_id: '', hosts: 1, refusals: [{ reason: 'cordoned', hosts: 1 }] },
    })
    await cordon(stack, true)
    const whole = { spec: { ...micro, memory_mb: 4_194_304 } }
    expect((await dryRun(stack, whole)).body.placement).toMatchObject({ host_id: stack.hostId, refusals: [] })
    await stack.createReady()
    for (const onCapacity of ['queue', 'fail']) {
      expect((await dryRun(stack, { ...whole, on_capacity: onCapacity })).body.placement).toMatchObject({
        host_id: '',
        refusals: [{ reason: 'no_memory', hosts: 1 }],
      })
    }
  })

  test('without any host says that none has connected', async () => {
    await using stack = await startStack({ agent: false })
    expect((await dryRun(stack)).body.placement).toEqual({
      host_id: '',
      hosts: 0,
      refusals: [],
      message: 'No host has connected yet.',
    })
  })

  test('is refused as the create would be', async () => {
    await using stack = await startStack({ agent: false })
    await stack.ensureExamples()
    const faults = { spec: { ...micro, subnet_id: 'subnet-none', security_groups: ['sg-none'], user_data: '!' } }
    const dry = await dryRun(stack, faults)
    const real = await stack.api('POST', '/v1/instances', faults)
    expect([dry.status, real.status]).toEqual([422, 422])
    expect({ ...dry.body, request_id: '' }).toEqual({ ...real.body, request_id: '' })
    expect(await stack.list()).toEqual([])
  })

  test('only true asks for it, and what is neither true nor false makes nothing', async () => {
    await using stack = await startStack({ agent: false })
    for (const query of ['?dry_run', '?dry_run=', '?dry_run=1', '?dry_run=yes', '?dry_run=TRUE', '?dryrun=true']) {
      expect({ query, status: (await dryRun(stack, { spec: micro }, query)).status }).toEqual({ query, status: 400 })
    }
    expect(await stack.list()).toEqual([])
    expect((await dryRun(stack, { spec: micro }, '?dry_run=false')).status).toBe(201)
    expect(await stack.list()).toHaveLength(1)
  })
})

describe('on_capacity fail', () => {
  test('ends with no_capacity and frees all when no host has room now', async () => {
    await using stack = await startStack()
    await until(
      () => stack.hostDocument(),
      (host) => host.status.state === 'ready',
    )
    await cordon(stack, false)
    const { body } = await stack.api<InstanceCreated>('POST', '/v1/instances', { on_capacity: 'fail', spec: micro })
    const operation = await stack.ended(body.operation_id)
    expect(operation).toMatchObject({
      status: 'failed',
      error: { code: 'no_capacity', retryable: true, message: expect.stringContaining('cordoned: 1') },
    })
    expect(operation.error?.hint).not.toBe('')
    const { status } = await stack.get(body.id)
    expect(status).toMatchObject({ state: 'terminated', reason: 'no_capacity', private_ip: '' })
    const { body: subnet } = await stack.api<{ status: object }>('GET', '/v1/subnets/subnet-default')
    expect(subnet.status).toMatchObject({ available_addresses: 4091 })
    for (const path of ['/v1/subnets/subnet-default', '/v1/vpcs/vpc-default', '/v1/security-groups/sg-default']) {
      expect({ path, status: (await stack.api('DELETE', path)).status }).toEqual({ path, status: 204 })
    }
  })

  test('does not fail while there is room', async () => {
    await using stack = await startStack()
    await until(
      () => stack.hostDocument(),
      (host) => host.status.state === 'ready',
    )
    const { body } = await stack.api<InstanceCreated>('POST', '/v1/instances', { on_capacity: 'fail', spec: micro })
    await stack.reach(body.id, 'ready')
    expect((await stack.ended(body.operation_id)).status).toBe('succeeded')
  })

  test('with the host full: those that fit run, the next one that may wait waits, the one that may not fails', async () => {
    await using stack = await startStack()
    await until(
      () => stack.hostDocument(),
      (host) => host.status.state === 'ready',
    )
    const third = { ...micro, memory_mb: 2 * 1024 * 1024 }
    const fitting = [await stack.create(third), await stack.create(third)]
    for (const { id } of fitting) await stack.reach(id, 'ready')
    const waiting = await stack.create(third)
    expect((await refusedInstance(stack, waiting.id))?.message).toContain('no_memory: 1')
    const { body } = await stack.api<InstanceCreated>('POST', '/v1/instances', { on_capacity: 'fail', spec: third })
    expect((await stack.ended(body.operation_id)).error).toMatchObject({ code: 'no_capacity' })
    await stack.ended(await stack.delete(fitting[0]?.id ?? ''))
    expect((await stack.reach(waiting.id, 'ready')).status.host_id).toBe(stack.hostId)
  })
})
