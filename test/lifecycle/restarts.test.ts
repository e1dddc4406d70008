import { HostError } from '@berth/agent/host-driver.ts'
import { describe, expect, test } from 'vitest'
import { startStack, until } from '../stack.ts'

describe('the agent', () => {
  test('adopts what runs when it is started again: the same VMM, no second boot', async () => {
    await using stack = await startStack()
    const before = await stack.createReady()
    const vmm = stack.host.vmmOf(before.id)
    await stack.restartAgent()
    const same = await stack.reach(before.id, 'ready')
    expect(stack.host.vmmOf(before.id)).toBe(vmm)
    expect(same.status).toMatchObject({
      started_at: before.status.started_at,
      restarts: 0,
      boot_timeline: before.status.boot_timeline,
    })
    // and it has hold of it
    expect(await stack.ended(await stack.act(before.id, 'stop'))).toMatchObject({ status: 'succeeded' })
    expect(vmm?.exited()).toBe(true)
  })

  test('killed with VMs running adopts them too', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const vmm = stack.host.vmmOf(id)
    await stack.killAgent()
    expect(vmm?.exited()).toBe(false)
    stack.startAgent()
    expect(await stack.ended(await stack.act(id, 'reboot'))).toMatchObject({ status: 'succeeded' })
    expect((await stack.reach(id, 'ready')).status.restarts).toBe(0)
    expect(vmm?.exited()).toBe(true)
  })

  test('learns that a guest powered off while it was away', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const vmm = stack.host.vmmOf(id)
    await stack.stopAgent()
    vmm?.guestPowersOff()
    stack.startAgent()
    expect((await stack.reach(id, 'stopped')).status).toMatchObject({ reason: 'guest_shutdown', restarts: 0 })
  })

  test('learns that a VMM died while it was away, and starts it again', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const vmm = stack.host.vmmOf(id)
    await stack.stopAgent()
    vmm?.die()
    stack.startAgent()
    const again = await until(
      () => stack.get(id),
      ({ status }) => status.restarts === 1,
    )
    expect(again.status.restarts).toBe(1)
    await stack.reach(id, 'ready')
  })

  test.each(['image', 'disk', 'network', 'start'] as const)(
    'killed in the middle of %s finishes the create when it is back',
    async (point) => {
      await using stack = await startStack()
      const release = stack.hold(point)
      const { id, operation_id: op } = await stack.create()
      await stack.stepRuns(op, point === 'start' ? 'boot' : point)
      await stack.killAgent(() => {
        // what was going on dies with the agent
        if (point === 'start') stack.host.failNext(point, new HostError('killed', '', { retryable: false }))
        release()
      })
      expect(stack.host.vmmOf(id)).toBeNull()
      stack.startAgent()
      expect(await stack.ended(op)).toMatchObject({ status: 'succeeded' })
      await stack.reach(id, 'ready')
    },
  )

  test('killed right after the VMM was started adopts it and does not start another', async () => {
    await using stack = await startStack()
    const release = stack.hold('start')
    const { id, operation_id: op } = await stack.create()
    await stack.stepRuns(op, 'boot')
    await stack.killAgent(release)
    const vmm = stack.host.vmmOf(id)
    expect(vmm).not.toBeNull()
    stack.startAgent()
    expect(await stack.ended(op)).toMatchObject({ status: 'succeeded' })
    await stack.reach(id, 'ready')
    expect(stack.host.vmmOf(id)).toBe(vmm)
  })

  test('killed in the middle of a start after the guest had powered off still starts it', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    stack.host.vmmOf(id)?.guestPowersOff()
    await stack.reach(id, 'stopped')
    const release = stack.hold('start')
    const start = await stack.act(id, 'start')
    await stack.stepRuns(start, 'boot')
    await stack.killAgent(() => {
      stack.host.failNext('start', new HostError('killed', '', { retryable: false }))
      release()
    })
    stack.startAgent()
    expect(await stack.ended(start)).toMatchObject({ status: 'succeeded' })
    expect((await stack.reach(id, 'running')).status.reason).toBe('')
  })

  test('killed in the middle of a stop finishes it, and it is no crash', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const vmm = stack.host.vmmOf(id)
    if (vmm !== null) vmm.ignoresButton = true
    const stop = await stack.act(id, 'stop', { grace_seconds: 3600 })
    await stack.stepRuns(stop, 'shutdown')
    await stack.killAgent()
    vmm?.guestPowersOff()
    stack.startAgent()
    expect(await stack.ended(stop)).toMatchObject({ status: 'succeeded' })
    expect((await stack.get(id)).status).toMatchObject({ state: 'stopped', reason: '', restarts: 0 })
  })

  test('killed in the middle of a reboot reboots once', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const vmm = stack.host.vmmOf(id)
    if (vmm !== null) vmm.ignoresButton = true
    const reboot = await stack.act(id, 'reboot', { grace_seconds: 3600 })
    await stack.stepRuns(reboot, 'shutdown')
    await stack.killAgent()
    vmm?.guestPowersOff()
    stack.startAgent()
    expect(await stack.ended(reboot)).toMatchObject({ status: 'succeeded' })
    const rebooted = stack.host.vmmOf(id)
    expect(rebooted).not.toBe(vmm)
    await stack.restartAgent()
    await stack.reach(id, 'ready')
    expect(stack.host.vmmOf(id)).toBe(rebooted)
  })
})

describe('the server', () => {
  test('keeps everything over a restart', async () => {
    await using stack = await startStack()
    await stack.ensureExamples()
    const running = await stack.createReady({ ssh_key_ids: ['key-001'] }, { name: 'web', labels: { a: 'b' } })
    const stopped = await stack.createReady()
    await stack.ended(await stack.act(stopped.id, 'stop'))
    const deleted = await stack.createReady()
    await stack.ended(await stack.delete(deleted.id))
    await stack.stopAgent()
    const read = async () =>
      Promise.all(
        [
          '/v1/instances',
          '/v1/instances?state=terminated',
          '/v1/operations',
          '/v1/vpcs',
          '/v1/subnets',
          '/v1/security-groups',
          '/v1/ssh-keys',
          '/v1/hosts',
          `/v1/instances/${running.id}/console-log`,
        ].map(async (path) => (await stack.api('GET', path)).text),
      )
    const before = await read()
    await stack.restartServer()
    expect(await read()).toEqual(before)
  })

  test('away, disturbs no VM, and what ended meanwhile is learned', async () => {
    await using stack = await startStack()
    const stays = await stack.createReady()
    const ends = await stack.createReady()
    const vmm = stack.host.vmmOf(stays.id)
    await stack.stopServer()
    stack.host.vmmOf(ends.id)?.guestPowersOff()
    await until(
      () => stack.host.vmmOf(ends.id),
      (gone) => gone === null,
    )
    await stack.startServer()
    // the report that failed is sent again soon, not at the next heartbeat
    expect((await stack.reach(ends.id, 'stopped')).status.reason).toBe('guest_shutdown')
    expect((await stack.get(stays.id)).status.state).toBe('running')
    expect(stack.host.vmmOf(stays.id)).toBe(vmm)
  })

  test('restarted in the middle of a create finishes it', async () => {
    await using stack = await startStack()
    const release = stack.hold('disk')
    const { operation_id: op } = await stack.create()
    await stack.stepRuns(op, 'disk')
    await stack.stopServer()
    release()
    await stack.startServer()
    expect(await stack.ended(op)).toMatchObject({ status: 'succeeded' })
  })

  test('restarted before it placed an instance places it', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create()
    await stack.restartServer()
    stack.startAgent()
    await stack.reach(id, 'ready')
  })

  test('restarted answers who waits with an ended connection, not with silence', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create()
    const waiting = stack.api('GET', `/v1/instances/${id}?wait_for=running&timeout=600`).then(
      () => 'answered',
      () => 'ended',
    )
    await stack.api('GET', `/v1/instances/${id}`)
    await stack.stopServer()
    expect(['answered', 'ended']).toContain(await waiting)
  })
})

describe('the host', () => {
  test('restarted with the server away brings back what should run, from the ledger', async () => {
    await using stack = await startStack()
    const runs = await stack.createReady()
    const stays = await stack.createReady()
    await stack.ended(await stack.act(stays.id, 'stop'))
    await stack.stopAgent()
    await stack.stopServer()
    stack.host.restart()
    expect(stack.host.vmmOf(runs.id)).toBeNull()
    stack.startAgent()
    await until(
      () => stack.host.vmmOf(runs.id),
      (vmm) => vmm !== null,
    )
    expect(stack.host.vmmOf(stays.id)).toBeNull()
    await stack.startServer()
    const back = await until(
      () => stack.get(runs.id),
      ({ status }) => status.state === 'running' && status.started_at !== runs.status.started_at,
    )
    // a restart of the host is no crash of the VMM
    expect(back.status).toMatchObject({ restarts: 0, private_ip: runs.status.private_ip, reason: '' })
    expect((await stack.get(stays.id)).status.state).toBe('stopped')
    expect(await stack.ended(await stack.delete(runs.id))).toMatchObject({ status: 'succeeded' })
  })

  test('restarted after a delete that it had not heard of yet removes the instance', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.stopAgent()
    const deletion = await stack.delete(id)
    stack.host.restart()
    stack.startAgent()
    expect(await stack.ended(deletion)).toMatchObject({ status: 'succeeded' })
    expect(stack.host.leftovers()).toEqual([])
  })
})
