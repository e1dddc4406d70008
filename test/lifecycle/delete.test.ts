import { defaultAgentSettings } from '@berth/agent/config.ts'
import type { Subnet } from '@berth/contract/networks/subnets.ts'
import { describe, expect, test } from 'vitest'
import { type Stack, startStack, TestClock, until } from '../stack.ts'

async function expectNothingHeld(stack: Stack): Promise<void> {
  expect(stack.host.leftovers()).toEqual([])
  expect((await stack.hostDocument()).status.allocated).toEqual({ vcpus: 0, memory_mb: 0, disk_gb: 0 })
}

describe('a delete wins', () => {
  const steps = { image: 'image', disk: 'disk', network: 'network', start: 'boot' } as const
  const points = ['image', 'disk', 'network', 'start'] as const

  test('over a create that waits to be scheduled: it is terminated in the same moment', async () => {
    await using stack = await startStack({ agent: false })
    const { id, operation_id: create } = await stack.create()
    const { body: before } = await stack.api<Subnet>('GET', '/v1/subnets/subnet-default')
    const deletion = await stack.delete(id)
    expect(await stack.operation(deletion)).toMatchObject({ status: 'succeeded' })
    const cancelled = await stack.operation(create)
    expect(cancelled).toMatchObject({ status: 'cancelled', error: { code: 'superseded', retryable: false } })
    expect(cancelled.steps.map((step) => step.status)).toEqual(Array(5).fill('cancelled'))
    expect((await stack.get(id)).status).toMatchObject({ state: 'terminated', reason: 'deleted' })
    const { body: after } = await stack.api<Subnet>('GET', '/v1/subnets/subnet-default')
    expect(after.status.available_addresses).toBe(before.status.available_addresses + 1)
    stack.startAgent()
    await stack.createReady() // the host has seen all there is to do
    expect(stack.host.vmmOf(id)).toBeNull()
  })

  test.each(points)('over a create that is held at its %s', async (point) => {
    await using stack = await startStack()
    stack.hold(point)
    const { id, operation_id: create } = await stack.create()
    await stack.stepRuns(create, steps[point])
    const deletion = await stack.delete(id)
    const cancelled = await stack.operation(create)
    expect(cancelled).toMatchObject({ status: 'cancelled', error: { code: 'superseded', retryable: false } })
    expect(cancelled.error?.message).toContain(deletion)
    expect(await stack.ended(deletion)).toMatchObject({ status: 'succeeded' })
    expect((await stack.get(id)).status).toMatchObject({ state: 'terminated', reason: 'deleted' })
    await expectNothingHeld(stack)
  })

  test.each(points)('over a create whose %s hangs and cannot be interrupted', async (point) => {
    await using stack = await startStack({ agentSettings: { windDownMs: 20 } })
    const release = stack.hold(point, { deaf: true })
    const { id, operation_id: create } = await stack.create()
    await stack.stepRuns(create, steps[point])
    const deletion = await stack.delete(id)
    expect(await stack.operation(create)).toMatchObject({ status: 'cancelled', error: { code: 'superseded' } })
    expect(await stack.ended(deletion)).toMatchObject({ status: 'succeeded' })
    await expectNothingHeld(stack)
    release() // what it makes after all is removed again
    await new Promise((resolve) => setImmediate(resolve))
    await until(
      () => stack.host.leftovers(),
      (left) => left.length === 0,
    )
    expect((await stack.get(id)).status.state).toBe('terminated')
  })

  test('over a process that does not end when it is told to: the clean-up ends it', async () => {
    const deadlinesMs = { ...defaultAgentSettings.deadlinesMs, shutdown: 40 }
    await using stack = await startStack({ agentSettings: { deadlinesMs, windDownMs: 20 } })
    const { id } = await stack.createReady()
    const vmm = stack.host.vmmOf(id)
    const release = stack.hold('quit')
    expect(await stack.ended(await stack.delete(id))).toMatchObject({ status: 'succeeded' })
    expect(vmm?.exited()).toBe(true)
    await expectNothingHeld(stack)
    release()
  })

  test('over a stop that has failed because the process does not end', async () => {
    const deadlinesMs = { ...defaultAgentSettings.deadlinesMs, shutdown: 40 }
    await using stack = await startStack({ agentSettings: { deadlinesMs, windDownMs: 20 } })
    const { id } = await stack.createReady()
    stack.hold('quit')
    expect(await stack.ended(await stack.act(id, 'stop', { force: true }))).toMatchObject({ status: 'failed' })
    expect(await stack.ended(await stack.delete(id))).toMatchObject({ status: 'succeeded' })
    await expectNothingHeld(stack)
  })

  test('over a deletion that did not end in time: another one begins anew, and ends', async () => {
    const clock = new TestClock()
    await using stack = await startStack({ now: clock.now, settings: { hostUnreachableMs: 1e12 } })
    const { id } = await stack.createReady()
    const release = stack.hold('remove')
    const late = await stack.delete(id)
    await stack.stepRuns(late, 'clean-up')
    expect(await stack.delete(id)).toBe(late)
    clock.advance(11 * 60_000)
    expect(await stack.ended(late)).toMatchObject({ status: 'failed', error: { code: 'deadline_exceeded' } })
    const anew = await stack.delete(id, '?grace_seconds=0')
    expect(anew).not.toBe(late)
    expect(await stack.delete(id)).toBe(anew)
    expect((await stack.get(id)).operation_id).toBe(anew)
    release()
    expect(await stack.ended(anew)).toMatchObject({ status: 'succeeded' })
    expect(await stack.delete(id)).toBe(anew)
    await expectNothingHeld(stack)
  })

  test('over a graceful stop that takes long: it is shortened', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const vmm = stack.host.vmmOf(id)
    if (vmm !== null) vmm.ignoresButton = true
    const stop = await stack.act(id, 'stop', { grace_seconds: 3600 })
    await stack.stepRuns(stop, 'shutdown')
    const deletion = await stack.delete(id, '?grace_seconds=0')
    expect(await stack.ended(deletion)).toMatchObject({ status: 'succeeded' })
    expect(await stack.operation(stop)).toMatchObject({ status: 'cancelled' })
    expect(vmm?.exited()).toBe(true)
    await expectNothingHeld(stack)
  })

  test('over a reboot', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const release = stack.hold('start')
    const reboot = await stack.act(id, 'reboot')
    await stack.stepRuns(reboot, 'boot')
    const deletion = await stack.delete(id)
    release()
    expect(await stack.ended(deletion)).toMatchObject({ status: 'succeeded' })
    expect(await stack.operation(reboot)).toMatchObject({ status: 'cancelled' })
    await expectNothingHeld(stack)
  })

  test('over a crash that waits for its restart', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    stack.host.vmmOf(id)?.die()
    expect(await stack.ended(await stack.delete(id))).toMatchObject({ status: 'succeeded' })
    await expectNothingHeld(stack)
  })

  test('over a guest that does not want to go, after the grace of the delete', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const vmm = stack.host.vmmOf(id)
    if (vmm !== null) vmm.ignoresButton = true
    expect(await stack.ended(await stack.delete(id, '?grace_seconds=1'))).toMatchObject({ status: 'succeeded' })
    await expectNothingHeld(stack)
  })

  test('of a stopped instance', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.ended(await stack.act(id, 'stop'))
    expect(stack.host.leftovers()).not.toEqual([])
    expect(await stack.ended(await stack.delete(id))).toMatchObject({ status: 'succeeded' })
    await expectNothingHeld(stack)
  })

  test('while the agent is away: it is carried out when the agent is back, and nothing is freed before', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.stopAgent()
    const deletion = await stack.delete(id)
    expect((await stack.get(id)).status.state).toBe('stopping')
    expect((await stack.hostDocument()).status.allocated.vcpus).toBe(1)
    expect(stack.host.vmmOf(id)).not.toBeNull()
    stack.startAgent()
    expect(await stack.ended(deletion)).toMatchObject({ status: 'succeeded' })
    await expectNothingHeld(stack)
  })

  test('also when the image is no longer known', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.restartServer({ images: [] })
    const operation = await stack.operation(await stack.delete(id), 3)
    expect(operation.status).toBe('succeeded')
    await expectNothingHeld(stack)
  })

  test('a stop is carried out too when the image is no longer known', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.restartServer({ images: [] })
    expect((await stack.operation(await stack.act(id, 'stop'), 3)).status).toBe('succeeded')
  })
})

describe('50 instances at once', () => {
  test('all become ready, share nothing, and leave nothing', async () => {
    await using stack = await startStack()
    const created = await Promise.all(Array.from({ length: 50 }, () => stack.create()))
    expect(new Set(created.map((instance) => instance.id)).size).toBe(50)
    const ready = await Promise.all(created.map(({ id }) => stack.reach(id, 'ready')))
    expect(new Set(ready.map((instance) => instance.status.private_ip)).size).toBe(50)
    const desired = await stack.agentApi<{ instances: { mac: string }[] }>('GET', '/v1/agent/desired?since=0')
    expect(new Set(desired.body.instances.map((instance) => instance.mac)).size).toBe(50)
    expect((await stack.hostDocument()).status.allocated).toEqual({ vcpus: 50, memory_mb: 50 * 256, disk_gb: 100 })

    const deletions = await Promise.all(created.map(({ id }) => stack.delete(id)))
    const ended = await Promise.all(deletions.map((op) => stack.ended(op)))
    expect(new Set(ended.map((operation) => operation.status))).toEqual(new Set(['succeeded']))
    await expectNothingHeld(stack)
    expect(await stack.list()).toEqual([])
    const { body } = await stack.api<{ status: { available_addresses: number } }>('GET', '/v1/subnets/subnet-default')
    expect(body.status.available_addresses).toBe(4091)
  })

  test('that are deleted while they are made leave nothing either', async () => {
    await using stack = await startStack()
    const created = await Promise.all(Array.from({ length: 30 }, () => stack.create()))
    const deletions = await Promise.all(created.map(({ id }) => stack.delete(id, '?grace_seconds=0')))
    for (const op of deletions) expect(await stack.ended(op)).toMatchObject({ status: 'succeeded' })
    for (const { operation_id: op } of created) {
      expect(['cancelled', 'succeeded']).toContain((await stack.operation(op)).status)
    }
    await expectNothingHeld(stack)
  })
})
