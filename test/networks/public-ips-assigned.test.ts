import type { InstanceCreated, InstanceDryRun } from '@berth/contract/instances/instances.ts'
import type { Subnet } from '@berth/contract/networks/subnets.ts'
import { describe, expect, test } from 'vitest'
import { startStack, until } from '../stack.ts'
import { addresses, allocate, attach, auto, inForce, list, plain, start } from './public-ip-stack.ts'

describe('a subnet that assigns addresses', () => {
  test('gives each instance one at its creation, shown once it is placed, and takes it back when it is gone', async () => {
    await using stack = await start()
    const created = await stack.create(auto)
    expect(created.status.public_ip).toBe('')
    const ready = await stack.reach(created.id, 'ready')
    expect(ready.status.public_ip).toBe('203.0.113.1')
    expect(ready.metadata.generation).toBe(1)
    expect(stack.host.publicAddresses()).toEqual({ '203.0.113.1': created.id })
    expect(await list(stack)).toMatchObject([
      { spec: { pool: 'default', instance_id: created.id }, status: { address: '203.0.113.1', auto_assigned: true } },
    ])
    await stack.ended(await stack.delete(created.id, '?grace_seconds=0'))
    expect(await list(stack)).toEqual([])
    expect((await stack.createReady(auto)).status.public_ip).toBe('203.0.113.2')
  })

  test('takes it back at once from an instance that was never placed', async () => {
    await using stack = await start({ agent: false })
    const { id } = await stack.create(auto)
    expect((await stack.get(id)).status).toMatchObject({ private_ip: '', public_ip: '' })
    expect(await addresses(stack)).toEqual(['203.0.113.1'])
    await stack.delete(id)
    expect(await addresses(stack)).toEqual([])
  })

  test('shows it in a dry run, which keeps nothing', async () => {
    await using stack = await start()
    const spec = { type: 'micro', image: 'micro', ...auto }
    const dry = await stack.api<InstanceDryRun>('POST', '/v1/instances?dry_run=true', { spec })
    expect(dry.body.status).toMatchObject({ private_ip: '10.0.1.4', public_ip: '203.0.113.1' })
    expect(await addresses(stack)).toEqual([])
    expect((await stack.createReady(auto)).status.public_ip).toBe('203.0.113.1')
  })

  test('makes an instance without one when the pool is full, which says so until it gets one', async () => {
    await using stack = await start({ agent: false })
    const body = { spec: { type: 'micro', image: 'micro', ...auto } }
    const answers = await Promise.all(
      Array.from({ length: 9 }, () => stack.api<InstanceCreated>('POST', '/v1/instances', body)),
    )
    expect(answers.map(({ status }) => status)).toEqual(Array(9).fill(201))
    expect(await list(stack)).toHaveLength(6)
    const without9 = (await stack.list()).filter(({ status }) => status.reason !== '')
    expect(without9.map(({ status: { reason, message } }) => ({ reason, message }))).toEqual(
      Array(3).fill({
        reason: 'no_public_addresses',
        message: 'Pool default (203.0.113.0/29) has no free public address.',
      }),
    )
    expect((await stack.api('POST', '/v1/public-ips', {})).body).toMatchObject({ code: 'no_public_addresses' })
    expect((await stack.api('GET', '/metrics')).text).toContain('berth_public_address_shortages_total 3\n')
    const [lucky] = (await stack.list()).filter(({ status }) => status.reason === '')
    await stack.delete(lucky?.id ?? '')
    const { id } = without9[0] ?? { id: '' }
    await allocate(stack, { spec: { instance_id: id } })
    expect((await stack.get(id)).status).toMatchObject({ reason: '', message: '' })
    const { body: shown } = await stack.api<Subnet>('GET', '/v1/subnets/subnet-auto')
    expect(shown.status.available_addresses).toBe(251 - 8)
    const without = { spec: { auto_assign_public_ip: false } }
    expect((await stack.api<Subnet>('PATCH', '/v1/subnets/subnet-auto', without)).body).toMatchObject({
      metadata: { generation: 2 },
      spec: { auto_assign_public_ip: false },
    })
    expect((await stack.api('POST', '/v1/instances', body)).status).toBe(201)
  })

  test('gives an address that becomes the own of who moves or detaches it', async () => {
    await using stack = await start()
    const [a, b] = [await stack.createReady(auto), await stack.createReady(plain)]
    const [pip] = await list(stack)
    if (pip === undefined) throw new Error('it has one')
    expect((await attach(stack, pip.id, b.id)).status).toEqual({ address: '203.0.113.1', auto_assigned: false })
    for (const { id } of [a, b]) await stack.ended(await stack.delete(id, '?grace_seconds=0'))
    expect(await list(stack)).toMatchObject([{ id: pip.id, spec: { instance_id: '' } }])
  })

  test('gives an address that makes way for one that is attached', async () => {
    await using stack = await start()
    const { id } = await stack.createReady(auto)
    const pip = await allocate(stack, { spec: { pool: 'lab', instance_id: id } })
    expect(await list(stack)).toEqual([pip])
    await inForce(stack, id)
    expect(stack.host.publicAddresses()).toEqual({ [pip.status.address]: id })
    const other = await stack.createReady(auto)
    await attach(stack, pip.id, other.id)
    expect((await list(stack)).map((each) => each.id)).toEqual([pip.id])
    await inForce(stack, id)
    await inForce(stack, other.id)
    expect(stack.host.publicAddresses()).toEqual({ [pip.status.address]: other.id })
  })

  test('gives an address that can be released while it is attached', async () => {
    await using stack = await start()
    const { id } = await stack.createReady(auto)
    const [pip] = await list(stack)
    expect((await stack.api('DELETE', `/v1/public-ips/${pip?.id}`)).status).toBe(204)
    expect((await stack.get(id)).status.public_ip).toBe('')
    await inForce(stack, id)
    expect(stack.host.publicAddresses()).toEqual({})
  })

  test('is one that the caller asks for; the example and default subnets do it where there is a pool', async () => {
    await using stack = await start({ agent: false })
    await stack.ensureExamples()
    await stack.create()
    const spec = { vpc_id: 'vpc-abc123', cidr: '10.0.2.0/24' }
    await stack.api('POST', '/v1/subnets', { id: 'subnet-c', spec })
    const { body } = await stack.api<{ items: Subnet[] }>('GET', '/v1/subnets')
    expect(body.items.map((subnet) => [subnet.id, subnet.spec.auto_assign_public_ip])).toEqual([
      ['subnet-auto', true],
      ['subnet-c', false],
      ['subnet-def456', true],
      ['subnet-default', true],
      ['subnet-plain', false],
    ])
    await using poolless = await startStack({ agent: false })
    await poolless.ensureExamples()
    expect((await poolless.create({ subnet_id: 'subnet-def456' })).id).toMatch(/^inst-/)
  })
})

describe('a host that comes up while the server is away', () => {
  test('attaches no public address before it has heard the server', async () => {
    await using stack = await start()
    const { id } = await stack.createReady(plain)
    const pip = await allocate(stack, { spec: { instance_id: id } })
    await inForce(stack, id)
    await stack.stopServer()
    await stack.stopAgent()
    stack.host.restart()
    stack.startAgent()
    await until(
      () => stack.host.running(),
      ([running]) => running === id,
    )
    expect(stack.host.publicAddresses()).toEqual({})
    await stack.startServer()
    await until(
      () => stack.host.publicAddresses(),
      (attached) => attached[pip.status.address] === id,
    )
    expect((await stack.reach(id, 'ready')).status.public_ip).toBe(pip.status.address)
  })

  test('leaves to another instance what the server has given it meanwhile', async () => {
    await using stack = await start()
    const [a, b] = [await stack.createReady(plain), await stack.createReady(plain)]
    const pip = await allocate(stack, { spec: { instance_id: a.id } })
    await inForce(stack, a.id)
    await stack.stopAgent()
    stack.host.restart()
    await attach(stack, pip.id, b.id)
    await stack.stopServer()
    stack.startAgent()
    await until(
      () => stack.host.running(),
      (running) => running.length === 2,
    )
    expect(stack.host.publicAddresses()).toEqual({})
    await stack.startServer()
    await until(
      () => stack.host.publicAddresses(),
      (attached) => attached[pip.status.address] === b.id,
    )
  })

  test('takes no address from a machine that runs on', async () => {
    await using stack = await start()
    const [a, b] = [await stack.createReady(plain), await stack.createReady(plain)]
    await allocate(stack, { spec: { instance_id: a.id } })
    await inForce(stack, a.id)
    await stack.stopServer()
    await stack.killAgent()
    stack.host.vmmOf(b.id)?.die()
    stack.startAgent()
    // the other one is started again from the ledger, so this one was looked at, too
    await until(
      () => stack.host.running(),
      (running) => running.length === 2,
    )
    expect(stack.host.publicAddresses()).toEqual({ '203.0.113.1': a.id })
    await stack.startServer()
    await stack.ended(await stack.act(a.id, 'stop'))
    expect(stack.host.publicAddresses()).toEqual({ '203.0.113.1': a.id })
  })

  test('attaches nothing new to a machine that runs on, and takes off what the server took back', async () => {
    await using stack = await start()
    const [a, b] = [await stack.createReady(plain), await stack.createReady(plain)]
    const pip = await allocate(stack, { spec: { instance_id: a.id } })
    await inForce(stack, a.id)
    const release = stack.hold('network')
    await attach(stack, pip.id, b.id)
    // the ledger has it, the host has not done it
    await until(
      () => stack.host.heldAt('network'),
      (calls) => calls === 2,
    )
    await stack.stopServer()
    await stack.killAgent(release)
    stack.startAgent()
    await until(
      () => stack.host.publicAddresses(),
      (attached) => Object.keys(attached).length === 0,
    )
    await stack.startServer()
    await until(
      () => stack.host.publicAddresses(),
      (attached) => attached[pip.status.address] === b.id,
    )
  })
})
