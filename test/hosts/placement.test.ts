import type { Subnet } from '@berth/contract/networks/subnets.ts'
import { describe, expect, test } from 'vitest'
import { startStack, until } from '../stack.ts'

// the simulated host offers 1000 vCPUs, 4 TiB and 100 TiB
const quarter = { vcpus: 250, memory_mb: 64 }

describe('room', () => {
  test('an instance that only an empty host could take waits, and is told what is short', async () => {
    await using stack = await startStack()
    await stack.createReady()
    const { id, operation_id: op } = await stack.create({ disk_gb: 65_536, memory_mb: 4_194_304, vcpus: 256 })
    const waiting = await until(
      () => stack.get(id),
      ({ status }) => status.conditions[0]?.status === 'false',
    )
    expect(waiting.status.conditions[0]?.message).toContain('no_memory: 1')
    await stack.delete(id)
    expect((await stack.operation(op)).status).toBe('cancelled')
  })

  test('an instance larger than every host is terminated with no_host_fits', async () => {
    await using stack = await startStack({ agent: false })
    const small = {
      agent_session: Date.now(),
      sequence: 1,
      revision: 0,
      agent_version: 'test',
      hostname: 'small',
      hypervisor: 'simulated',
      accelerator: 'none',
      accelerator_reason: '',
      capacity: { vcpus: 4, memory_mb: 4096, disk_gb: 100 },
      images: [],
      instances: [],
    }
    await stack.agentApi('POST', '/v1/agent/observed', small)
    for (const spec of [{ vcpus: 5 }, { memory_mb: 4097 }, { disk_gb: 101 }]) {
      const { id, operation_id: op } = await stack.create(spec)
      const gone = await stack.reach(id, 'terminated')
      expect(gone.status).toMatchObject({ reason: 'no_host_fits', host_id: '', private_ip: '' })
      expect(gone.status.message).toContain('4 vCPU, 4096 MiB, 100 GiB')
      const operation = await stack.operation(op)
      expect(operation).toMatchObject({ status: 'failed', error: { code: 'no_host_fits', retryable: false } })
      expect(operation.steps[0]).toMatchObject({ name: 'schedule', status: 'failed' })
    }
    const { body } = await stack.api<Subnet>('GET', '/v1/subnets/subnet-default')
    expect(body.status.available_addresses).toBe(4091)
    // what fits exactly is placed
    const { id } = await stack.create({ vcpus: 4, memory_mb: 4096, disk_gb: 100 })
    await until(
      () => stack.get(id),
      ({ status }) => status.host_id === stack.hostId,
    )
  })

  test('without room an instance waits, says why, and is placed when room is freed', async () => {
    await using stack = await startStack()
    const full = await Promise.all(Array.from({ length: 4 }, () => stack.create(quarter)))
    for (const { id } of full) await stack.reach(id, 'running')
    const { id, operation_id: op } = await stack.create()
    const waiting = await until(
      () => stack.get(id),
      ({ status }) => status.conditions[0]?.status === 'false',
    )
    expect(waiting.status).toMatchObject({ state: 'provisioning', host_id: '', private_ip: '' })
    expect(waiting.status.conditions[0]).toEqual({
      type: 'Scheduled',
      status: 'false',
      reason: 'no_host_has_room',
      message: expect.stringContaining('(no_vcpus: 1)'),
      at: '',
    })
    expect((await stack.operation(op)).status).toBe('pending')
    expect((await stack.hostDocument()).status.allocated.vcpus).toBe(1000)
    await stack.delete(full[0]?.id ?? '')
    const placed = await stack.reach(id, 'ready')
    expect(placed.status.conditions[0]).toMatchObject({ type: 'Scheduled', status: 'true', reason: '', message: '' })
    expect(await stack.operation(op)).toMatchObject({ status: 'succeeded' })
  })

  test('a stopped instance keeps its room', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady(quarter)
    await stack.ended(await stack.act(id, 'stop'))
    expect((await stack.hostDocument()).status.allocated).toEqual({ vcpus: 250, memory_mb: 64, disk_gb: 2 })
  })

  test('of many that ask at once for the last room, no more are placed than fit', async () => {
    await using stack = await startStack()
    const created = await Promise.all(Array.from({ length: 12 }, () => stack.create(quarter)))
    const all = await until(
      () => stack.list(),
      (instances) => instances.every(({ status }) => status.host_id !== '' || status.conditions[0]?.status === 'false'),
    )
    expect(all.filter(({ status }) => status.host_id !== '')).toHaveLength(4)
    // oldest first
    expect(all.slice(0, 4).every(({ status }) => status.host_id !== '')).toBe(true)
    expect((await stack.hostDocument()).status.allocated.vcpus).toBe(1000)
    const deletions = await Promise.all(created.map(({ id }) => stack.delete(id, '?grace_seconds=0')))
    for (const op of deletions) expect(await stack.ended(op)).toMatchObject({ status: 'succeeded' })
    expect((await stack.hostDocument()).status.allocated.vcpus).toBe(0)
  })

  test('a hundred that wait for much room do not keep a small one from the room there is', async () => {
    await using stack = await startStack()
    await Promise.all(Array.from({ length: 3 }, () => stack.create(quarter)))
    await Promise.all(Array.from({ length: 101 }, () => stack.create({ vcpus: 256, memory_mb: 64 })))
    const { id } = await stack.create()
    const small = await stack.api<{ status: object }>('GET', `/v1/instances/${id}?wait_for=running&timeout=3`)
    expect(small.headers['berth-wait'], JSON.stringify(small.body.status)).toBe('reached')
  })

  test('a host that has not been heard of for long gets nothing', async () => {
    await using stack = await startStack({ settings: { hostUnreachableMs: 0 } })
    const { id } = await stack.create()
    const waiting = await until(
      () => stack.get(id),
      ({ status }) => status.conditions[0]?.message.includes('unreachable') === true,
    )
    expect(waiting.status.state).toBe('provisioning')
    expect((await stack.hostDocument()).status.state).toBe('unreachable')
  })

  test('with no host at all an instance waits and says so', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create()
    const waiting = await until(
      () => stack.get(id),
      ({ status }) => status.conditions[0]?.status === 'false',
    )
    expect(waiting.status.conditions[0]?.message).toBe('No host has connected yet.')
  })
})

describe('addresses', () => {
  test('a freed one is handed out again last, the one freed first before the others', async () => {
    await using stack = await startStack()
    await stack.api('POST', '/v1/vpcs', { id: 'vpc-tiny', spec: { cidr: '10.7.0.0/28' } })
    await stack.api('POST', '/v1/subnets', { id: 'subnet-tiny', spec: { vpc_id: 'vpc-tiny', cidr: '10.7.0.0/28' } })
    const made: string[] = []
    const take = async () => {
      const { id, status } = await stack.createReady({ subnet_id: 'subnet-tiny' })
      made.push(id)
      return status.private_ip
    }
    const free = async (id: string | undefined) => stack.ended(await stack.delete(id ?? '', '?grace_seconds=0'))
    const addresses: string[] = []
    for (let i = 0; i < 3; i++) addresses.push(await take())
    await free(made[1])
    await free(made[0])
    for (let i = 0; i < 8; i++) addresses.push(await take())
    // four addresses at the start and the broadcast address are nobody's
    expect(addresses).toEqual(Array.from({ length: 11 }, (_, i) => `10.7.0.${i + 4}`))
    expect(await take()).toBe('10.7.0.5')
    expect(await take()).toBe('10.7.0.4')
    const full = await stack.api('POST', '/v1/instances', {
      spec: { type: 'micro', image: 'micro', subnet_id: 'subnet-tiny' },
    })
    expect({ status: full.status, code: full.body.code }).toEqual({ status: 422, code: 'no_addresses' })
  })

  test('one that is being deleted keeps its address until the host says that it is gone', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.stopAgent()
    const available = async () =>
      (await stack.api<Subnet>('GET', '/v1/subnets/subnet-default')).body.status.available_addresses
    const before = await available()
    const deletion = await stack.delete(id)
    expect(await available()).toBe(before)
    stack.startAgent()
    await stack.ended(deletion)
    expect(await available()).toBe(before + 1)
  })

  test('a terminated instance shows no address that another may have', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.ended(await stack.delete(id))
    expect((await stack.get(id)).status.private_ip).toBe('')
  })
})
