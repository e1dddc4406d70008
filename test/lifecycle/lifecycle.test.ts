import { HostError } from '@berth/agent/host-driver.ts'
import { timelineFields } from '@berth/contract/instances/instances.ts'
import { describe, expect, test } from 'vitest'
import { type Stack, startStack, TestClock, until } from '../stack.ts'

/** The VMM of an instance that runs. */
function vmmOf(stack: Stack, id: string) {
  const vmm = stack.host.vmmOf(id)
  if (vmm === null) throw new Error(`${id} has no VMM`)
  return vmm
}

const passing = (message = 'busy') =>
  new HostError('image_download_failed', message, { retryable: true, tryAgain: true })

describe('a create', () => {
  test('fills its timeline in order', async () => {
    await using stack = await startStack()
    const { status } = await stack.createReady()
    const times = timelineFields.map((field) => status.boot_timeline[field])
    for (const time of times) expect(time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    expect(times).toEqual([...times].sort())
    expect(status.started_at).toBe(status.boot_timeline.vmm_started_at)
    expect(status.observed_generation).toBe(1)
    expect(status.host_id).toBe(stack.hostId)
  })

  test('shows where it is while it goes on', async () => {
    await using stack = await startStack()
    const release = stack.hold('disk')
    const { id, operation_id: op } = await stack.create()
    const operation = await stack.stepRuns(op, 'disk')
    expect(operation.status).toBe('running')
    expect(operation.steps.map((step) => step.status)).toEqual([
      'succeeded',
      'succeeded',
      'running',
      'pending',
      'pending',
    ])
    const { status } = await stack.get(id)
    expect(status.state).toBe('provisioning')
    expect(status.private_ip).not.toBe('')
    expect(status.conditions.map((condition) => condition.status)).toEqual([
      'true',
      'true',
      'unknown',
      'unknown',
      'unknown',
      'unknown',
    ])
    expect(status.boot_timeline.image_ready_at).not.toBe('')
    expect(status.boot_timeline.disk_ready_at).toBe('')
    release()
    expect((await stack.ended(op)).status).toBe('succeeded')
  })

  test('that cannot get its image ends terminated with the cause, and holds nothing', async () => {
    await using stack = await startStack()
    const message = 'https://images.example/micro.img answered with 404'
    stack.host.failNext('image', new HostError('image_download_failed', message, { retryable: true }))
    const { id, operation_id: op } = await stack.create()
    const operation = await stack.ended(op)
    expect(operation).toMatchObject({
      status: 'failed',
      error: { code: 'image_download_failed', message, retryable: true, hint: expect.stringContaining('URL') },
    })
    expect(operation.steps.find((step) => step.name === 'image')).toMatchObject({
      status: 'failed',
      attempt: 1,
      error: { code: 'image_download_failed', message },
    })
    expect(operation.steps.slice(2).map((step) => step.status)).toEqual(['cancelled', 'cancelled', 'cancelled'])
    const gone = await stack.reach(id, 'terminated')
    expect(gone.status).toMatchObject({ reason: 'image_download_failed', message })
    await expectNothingHeld(stack)
    // a delete of it is still accepted, with an operation that has succeeded
    expect((await stack.operation(await stack.delete(id))).status).toBe('succeeded')
  })

  test.each(['disk', 'network', 'start'] as const)('whose %s fails for good leaves nothing', async (point) => {
    await using stack = await startStack()
    const error = new HostError('disk_failed', 'no space', { retryable: false })
    stack.host.failNext(point, error)
    const { id, operation_id: op } = await stack.create()
    expect(await stack.ended(op)).toMatchObject({
      status: 'failed',
      error: { code: 'disk_failed', message: 'no space' },
    })
    await stack.reach(id, 'terminated')
    await expectNothingHeld(stack)
  })

  test('after a failure the next one of the same image is tried afresh', async () => {
    await using stack = await startStack()
    stack.host.failNext('image', new HostError('image_download_failed', 'gone', { retryable: true }))
    const failed = await stack.create()
    await stack.reach(failed.id, 'terminated')
    expect((await stack.createReady()).status.state).toBe('running')
  })

  test('a step that passes when tried again counts its attempts', async () => {
    await using stack = await startStack()
    stack.host.failNext('image', passing())
    const { operation_id: op } = await stack.create()
    const operation = await stack.ended(op)
    expect(operation.status).toBe('succeeded')
    expect(operation.steps.find((step) => step.name === 'image')).toMatchObject({ attempt: 2, error: null })
  })

  test('the pause before another attempt is not cut short by what happens to other instances', async () => {
    await using stack = await startStack()
    stack.host.failNext('image', passing())
    const before = performance.now()
    const { operation_id: op } = await stack.create()
    await until(
      () => stack.operation(op),
      (operation) => operation.steps.some((step) => step.name === 'image' && step.error !== null),
    )
    await stack.createReady()
    const operation = await stack.ended(op)
    expect(operation.steps.find((step) => step.name === 'image')?.attempt).toBe(2)
    expect(performance.now() - before).toBeGreaterThan(1000) // the first pause is a second
  })

  test('that takes longer than its deadline ends with that as the cause', async () => {
    const clock = new TestClock()
    await using stack = await startStack({ now: clock.now, settings: { hostUnreachableMs: 1e12 } })
    stack.hold('image')
    const { id, operation_id: op } = await stack.create()
    await stack.stepRuns(op, 'image')
    clock.advance(61 * 60_000)
    const operation = await stack.ended(op)
    expect(operation).toMatchObject({ status: 'failed', error: { code: 'deadline_exceeded' } })
    expect(operation.error?.message).toContain('image')
    const gone = await stack.reach(id, 'terminated')
    expect(gone.status.reason).toBe('deadline_exceeded')
    await expectNothingHeld(stack)
  })
})

async function expectNothingHeld(stack: Stack): Promise<void> {
  expect(stack.host.leftovers()).toEqual([])
  expect((await stack.hostDocument()).status.allocated).toEqual({ vcpus: 0, memory_mb: 0, disk_gb: 0 })
  const { body } = await stack.api<{ status: { available_addresses: number } }>('GET', '/v1/subnets/subnet-default')
  expect(body.status.available_addresses).toBe(4096 - 5)
}

describe('a guest', () => {
  test('that powers itself off is stopped, says so, and starts again when asked', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    vmmOf(stack, id).guestPowersOff()
    const stopped = await stack.reach(id, 'stopped')
    expect(stopped.status).toMatchObject({ state: 'stopped', reason: 'guest_shutdown', restarts: 0 })
    expect(stack.host.vmmOf(id)).toBeNull()
    expect(await stack.ended(await stack.act(id, 'start'))).toMatchObject({ status: 'succeeded' })
    const running = await stack.reach(id, 'ready')
    expect(running.status).toMatchObject({ reason: '', message: '' })
  })

  test('that powers itself off during a stop is just stopped', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const vmm = vmmOf(stack, id)
    vmm.ignoresButton = true
    const op = await stack.act(id, 'stop', { grace_seconds: 3600 })
    await stack.stepRuns(op, 'shutdown')
    vmm.guestPowersOff()
    expect(await stack.ended(op)).toMatchObject({ status: 'succeeded' })
    expect((await stack.get(id)).status).toMatchObject({ state: 'stopped', reason: '' })
  })

  test('whose VMM dies is started again, and that is counted', async () => {
    await using stack = await startStack()
    const { id, metadata } = await stack.createReady()
    const vmm = vmmOf(stack, id)
    vmm.die()
    const down = await until(
      () => stack.get(id),
      ({ status }) => status.state !== 'running',
    )
    expect(down.status.state).toBe('provisioning')
    expect(down.status.conditions).toContainEqual(
      expect.objectContaining({ type: 'Booted', status: 'false', reason: 'vmm_crashed' }),
    )
    const again = await stack.reach(id, 'ready')
    expect(again.status.restarts).toBe(1)
    expect(again.metadata.generation).toBe(metadata.generation)
    expect(vmmOf(stack, id)).not.toBe(vmm)
  })

  test('whose VMM has died can be asked to start: that succeeds when it runs again, not before', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const release = stack.hold('image')
    vmmOf(stack, id).die()
    await until(
      () => stack.get(id),
      (instance) => instance.status.state === 'provisioning',
    )
    const op = await stack.act(id, 'start')
    expect((await stack.operation(op)).finished_at).toBeNull()
    release()
    expect((await stack.ended(op)).status).toBe('succeeded')
    expect((await stack.get(id)).status.state).toBe('running')
  })

  test('that ignores the power button is powered off after its grace', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    vmmOf(stack, id).ignoresButton = true
    const before = performance.now()
    expect(await stack.ended(await stack.act(id, 'stop', { grace_seconds: 1 }))).toMatchObject({ status: 'succeeded' })
    expect(performance.now() - before).toBeGreaterThan(900)
    expect((await stack.get(id)).status).toMatchObject({ state: 'stopped', reason: '' })
  })

  test('that ignores the power button is rebooted all the same', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const vmm = vmmOf(stack, id)
    vmm.ignoresButton = true
    expect(await stack.ended(await stack.act(id, 'reboot', { force: true }))).toMatchObject({ status: 'succeeded' })
    expect(vmmOf(stack, id)).not.toBe(vmm)
  })
})

describe('changes of mind', () => {
  test('a stop during the image step cancels the create and needs no image', async () => {
    await using stack = await startStack()
    const release = stack.hold('image')
    const { id, operation_id: create } = await stack.create()
    await stack.stepRuns(create, 'image')
    const stop = await stack.act(id, 'stop')
    expect(await stack.ended(stop)).toMatchObject({ status: 'succeeded' })
    const cancelled = await stack.operation(create)
    expect(cancelled).toMatchObject({ status: 'cancelled', error: { code: 'superseded' } })
    expect(cancelled.error?.message).toContain(stop)
    expect((await stack.get(id)).status.state).toBe('stopped')
    release()
    expect(await stack.ended(await stack.act(id, 'start'))).toMatchObject({ status: 'succeeded' })
    await stack.reach(id, 'ready')
  })

  test('stopping an instance that no host has taken yet succeeds', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create()
    const operation = await stack.operation(await stack.act(id, 'stop'), 1)
    expect((await stack.get(id)).status.state).toBe('stopped')
    expect(operation.status).toBe('succeeded')
  })

  test('a start during a stop cancels the stop and ends running', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const release = stack.hold('quit')
    const stop = await stack.act(id, 'stop')
    await stack.stepRuns(stop, 'shutdown')
    const start = await stack.act(id, 'start')
    expect(await stack.operation(stop)).toMatchObject({ status: 'cancelled', error: { code: 'superseded' } })
    release()
    expect(await stack.ended(start)).toMatchObject({ status: 'succeeded' })
    const running = await stack.reach(id, 'ready')
    expect(running.status).toMatchObject({ reason: '', restarts: 0 })
  })

  test('a start during a stop does not lengthen the grace that the stop gave', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    vmmOf(stack, id).ignoresButton = true
    const stop = await stack.act(id, 'stop', { grace_seconds: 1 })
    await stack.stepRuns(stop, 'shutdown')
    const start = await stack.act(id, 'start')
    expect(await stack.operation(start, 4)).toMatchObject({ status: 'succeeded' })
  })

  test('a reboot during a create boots once more and replaces it', async () => {
    await using stack = await startStack()
    const release = stack.hold('start')
    const { id, operation_id: create } = await stack.create()
    await stack.stepRuns(create, 'boot')
    const reboot = await stack.act(id, 'reboot', { force: true })
    release()
    expect(await stack.ended(reboot)).toMatchObject({ status: 'succeeded' })
    expect(await stack.operation(create)).toMatchObject({ status: 'cancelled' })
    await stack.reach(id, 'ready')
  })

  test('a reboot that a stop replaced is not carried out at the next start', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.stopAgent()
    const reboot = await stack.act(id, 'reboot')
    const stop = await stack.act(id, 'stop')
    stack.startAgent()
    await stack.ended(stop)
    expect(await stack.operation(reboot)).toMatchObject({ status: 'cancelled' })
    await stack.ended(await stack.act(id, 'start'))
    // the host says so once nothing is left to do
    await until(
      () => stack.get(id),
      ({ metadata, status }) => status.observed_generation === metadata.generation,
    )
    await stack.ended(await stack.delete(id))
    const { text } = await stack.api('GET', `/v1/instances/${id}/console-log`)
    expect(text.match(/Linux version/g)).toHaveLength(2) // the create and the start
  })

  test('many changes of mind at once end as the last one says, and every operation ends', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const operations: string[] = []
    for (let round = 0; round < 5; round++) {
      operations.push(await stack.act(id, 'stop', { grace_seconds: 30 }), await stack.act(id, 'start'))
    }
    operations.push(await stack.act(id, 'stop', { force: true }))
    const ended = await Promise.all(operations.map((op) => stack.ended(op)))
    expect(ended.at(-1)?.status).toBe('succeeded')
    for (const operation of ended) expect(['succeeded', 'cancelled']).toContain(operation.status)
    expect((await stack.get(id)).status.state).toBe('stopped')
    expect(stack.host.vmmOf(id)).toBeNull()
  })

  test('a start that fails for good leaves the instance stopped with the cause, to be started again', async () => {
    await using stack = await startStack()
    const { id, status } = await stack.createReady()
    await stack.ended(await stack.act(id, 'stop'))
    stack.host.failNext('network', new HostError('network_failed', 'no nft', { retryable: true }))
    const failed = await stack.ended(await stack.act(id, 'start'))
    expect(failed).toMatchObject({ status: 'failed', error: { code: 'network_failed', message: 'no nft' } })
    expect(failed.steps.find((step) => step.name === 'network')).toMatchObject({ status: 'failed' })
    const stopped = await stack.reach(id, 'stopped')
    expect(stopped.status).toMatchObject({ reason: 'network_failed', private_ip: status.private_ip })
    expect(await stack.ended(await stack.act(id, 'start'))).toMatchObject({ status: 'succeeded' })
    expect((await stack.reach(id, 'ready')).status.reason).toBe('')
  })

  test('of equal requests at the same time all are accepted, and the instance ends as they say', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const all = <T>(ask: () => Promise<T>) => Promise.all(Array.from({ length: 10 }, ask))
    const stops = await all(() => stack.act(id, 'stop'))
    for (const op of stops) expect(await stack.ended(op)).toMatchObject({ status: 'succeeded' })
    const starts = await all(() => stack.act(id, 'start'))
    for (const op of starts) expect(await stack.ended(op)).toMatchObject({ status: 'succeeded' })
    expect((await stack.reach(id, 'ready')).metadata.generation).toBe(3)
    expect(new Set(await all(() => stack.delete(id))).size).toBe(1)
  })
})
