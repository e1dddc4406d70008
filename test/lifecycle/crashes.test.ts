import { type AgentSettings, defaultAgentSettings } from '@berth/agent/config.ts'
import { HostError } from '@berth/agent/host-driver.ts'
import type { Condition, Instance } from '@berth/contract/instances/instances.ts'
import { describe, expect, test } from 'vitest'
import { type Stack, startStack, until } from '../stack.ts'

const crash = (policy: Partial<AgentSettings['crash']>) => ({
  agentSettings: { crash: { ...defaultAgentSettings.crash, ...policy } },
})

/** Nothing restarts by itself in the time of a test. */
const longPause = crash({ firstPauseMs: 600_000 })

function vmmOf(stack: Stack, id: string) {
  const vmm = stack.host.vmmOf(id)
  if (vmm === null) throw new Error(`${id} has no VMM`)
  return vmm
}

function condition(instance: Instance, type: Condition['type']): Condition | undefined {
  return instance.status.conditions.find((candidate) => candidate.type === type)
}

/** Have the VMM die, as by SIGKILL, and wait until the crash is counted. */
async function crashOnce(stack: Stack, id: string, restarts: number): Promise<Instance> {
  vmmOf(stack, id).die()
  return until(
    () => stack.get(id),
    ({ status }) => status.restarts === restarts,
  )
}

describe('a VMM that dies', () => {
  test('quickly five times in a row stays down with the reason; a start begins the row anew', async () => {
    await using stack = await startStack(crash({ firstPauseMs: 1 }))
    const { id } = await stack.createReady()
    for (let death = 1; death < 5; death++) {
      await crashOnce(stack, id, death)
      await stack.reach(id, 'running')
    }
    vmmOf(stack, id).die()
    const { status } = await stack.reach(id, 'stopped')
    expect(status).toMatchObject({
      reason: 'crash_loop',
      message: 'QEMU ended within 60 s of its start 5 times in a row.',
      restarts: 5,
    })
    expect(stack.host.vmmOf(id)).toBeNull()
    expect(await stack.ended(await stack.act(id, 'start'))).toMatchObject({ status: 'succeeded' })
    expect((await stack.reach(id, 'ready')).status).toMatchObject({ reason: '', message: '' })
    await crashOnce(stack, id, 6)
    await stack.reach(id, 'running')
  })

  test('after a longer life is no part of a row', async () => {
    await using stack = await startStack(crash({ firstPauseMs: 1, quickMs: 0 }))
    const { id } = await stack.createReady()
    for (let death = 1; death <= 6; death++) {
      await crashOnce(stack, id, death)
      await stack.reach(id, 'running')
    }
  })

  test('is known as such in the conditions until the next boot, whose guest has yet to become ready', async () => {
    await using stack = await startStack({ ...longPause, host: { guestBootMs: 50 } })
    const { id } = await stack.createReady()
    const down = await crashOnce(stack, id, 1)
    expect(condition(down, 'Booted')).toMatchObject({ status: 'false', reason: 'vmm_crashed' })
    expect(condition(down, 'GuestReady')).toMatchObject({ status: 'unknown' })
    expect(down.status).toMatchObject({ state: 'provisioning', started_at: '' })
    const release = stack.hold('start')
    const start = await stack.act(id, 'reboot')
    await stack.stepRuns(start, 'boot')
    expect(condition(await stack.get(id), 'Booted')).toMatchObject({ status: 'unknown' })
    release()
    const again = await stack.reach(id, 'ready')
    expect(condition(again, 'Booted')).toMatchObject({ status: 'true', reason: '' })
    expect(condition(again, 'GuestReady')).toMatchObject({ status: 'true' })
  })

  test('keeps its row of quick deaths over restarts of the agent', async () => {
    await using stack = await startStack(crash({ firstPauseMs: 1, maxQuickDeaths: 2 }))
    const { id } = await stack.createReady()
    await crashOnce(stack, id, 1)
    await stack.reach(id, 'running')
    await stack.stopAgent()
    vmmOf(stack, id).die()
    stack.startAgent()
    expect((await stack.reach(id, 'stopped')).status).toMatchObject({ reason: 'crash_loop', restarts: 2 })
  })
})

describe('during the pause after a crash', () => {
  test('a stop is carried out at once, and a start after it does not wait for the rest', async () => {
    await using stack = await startStack(longPause)
    const { id } = await stack.createReady()
    await crashOnce(stack, id, 1)
    expect(await stack.ended(await stack.act(id, 'stop'))).toMatchObject({ status: 'succeeded' })
    expect((await stack.get(id)).status).toMatchObject({ state: 'stopped', reason: '' })
    expect(await stack.ended(await stack.act(id, 'start'))).toMatchObject({ status: 'succeeded' })
    expect((await stack.reach(id, 'ready')).status.restarts).toBe(1)
  })

  test('a reboot starts it at once', async () => {
    await using stack = await startStack(longPause)
    const { id } = await stack.createReady()
    await crashOnce(stack, id, 1)
    expect(await stack.ended(await stack.act(id, 'reboot'))).toMatchObject({ status: 'succeeded' })
    await stack.reach(id, 'ready')
  })

  test('nothing is started, also not by an agent that is started again', async () => {
    await using stack = await startStack(longPause)
    const { id } = await stack.createReady()
    await crashOnce(stack, id, 1)
    await stack.restartAgent()
    const other = await stack.createReady() // the agent is at work
    expect(other.status.state).toBe('running')
    expect(stack.host.vmmOf(id)).toBeNull()
    expect((await stack.get(id)).status).toMatchObject({ state: 'provisioning', restarts: 1 })
  })
})

describe('a death that is no crash', () => {
  test('of a VMM that was shutting down is the end of the stop', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const vmm = vmmOf(stack, id)
    vmm.ignoresButton = true
    const stop = await stack.act(id, 'stop', { grace_seconds: 3600 })
    await stack.stepRuns(stop, 'shutdown')
    vmm.die()
    expect(await stack.ended(stop)).toMatchObject({ status: 'succeeded' })
    expect((await stack.get(id)).status).toMatchObject({ state: 'stopped', reason: '', restarts: 0 })
  })

  test('of a VMM that was shutting down for a reboot lets the reboot go on at once', async () => {
    await using stack = await startStack(longPause)
    const { id } = await stack.createReady()
    const vmm = vmmOf(stack, id)
    vmm.ignoresButton = true
    const reboot = await stack.act(id, 'reboot', { grace_seconds: 3600 })
    await stack.stepRuns(reboot, 'shutdown')
    vmm.die()
    expect(await stack.ended(reboot)).toMatchObject({ status: 'succeeded' })
    expect((await stack.reach(id, 'ready')).status.restarts).toBe(0)
  })

  test('of a VMM that was to be stopped by an agent that was away', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.stopAgent()
    vmmOf(stack, id).die()
    const stop = await stack.act(id, 'stop')
    stack.startAgent()
    expect(await stack.ended(stop)).toMatchObject({ status: 'succeeded' })
    await until(
      () => stack.get(id),
      ({ metadata, status }) => status.observed_generation === metadata.generation,
    )
    expect((await stack.get(id)).status).toMatchObject({ state: 'stopped', reason: '' })
  })

  test('of the process of a guest that has powered itself off', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const release = stack.hold('quit')
    const vmm = vmmOf(stack, id)
    vmm.guestPowersOff()
    vmm.die()
    release()
    expect((await stack.reach(id, 'stopped')).status).toMatchObject({ reason: 'guest_shutdown', restarts: 0 })
  })
})

describe('a reboot', () => {
  test('whose new VMM dies soon has succeeded; the death is counted', async () => {
    await using stack = await startStack(crash({ firstPauseMs: 1 }))
    const { id } = await stack.createReady()
    expect(await stack.ended(await stack.act(id, 'reboot'))).toMatchObject({ status: 'succeeded' })
    await crashOnce(stack, id, 1)
    await stack.reach(id, 'ready')
  })
})

describe('a restart of the host', () => {
  test('keeps the count of crashes and adds nothing to it; the machine is ready again', async () => {
    await using stack = await startStack(crash({ firstPauseMs: 1 }))
    const { id } = await stack.createReady()
    await crashOnce(stack, id, 1)
    const before = await stack.reach(id, 'ready')
    await stack.stopAgent()
    stack.host.restart()
    stack.startAgent()
    const after = await until(
      () => stack.get(id),
      (instance) =>
        condition(instance, 'GuestReady')?.status === 'true' && instance.status.started_at !== before.status.started_at,
    )
    expect(after.status).toMatchObject({ state: 'running', restarts: 1, reason: '' })
    expect(condition(after, 'Booted')).toMatchObject({ status: 'true' })
    expect(after.status.boot_timeline.guest_ready_at > before.status.boot_timeline.guest_ready_at).toBe(true)
  })

  test('says so while the machine is down', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.stopAgent()
    stack.host.restart()
    stack.hold('disk')
    stack.startAgent()
    const down = await until(
      () => stack.get(id),
      ({ status }) => status.state === 'provisioning',
    )
    expect(condition(down, 'Booted')?.status).not.toBe('true')
    expect(condition(down, 'GuestReady')).toMatchObject({ status: 'unknown' })
  })

  test('in the pause after a crash brings the machine back without waiting for the rest of it', async () => {
    await using stack = await startStack(longPause)
    const { id } = await stack.createReady()
    await crashOnce(stack, id, 1)
    await stack.stopAgent()
    stack.host.restart()
    stack.startAgent()
    expect((await stack.reach(id, 'ready')).status.restarts).toBe(1)
  })

  test('with the server away has another try at what the host could not start before', async () => {
    await using stack = await startStack({ agentSettings: { retryPausesMs: [] } })
    const { id } = await stack.createReady()
    await stack.stopAgent()
    await stack.stopServer()
    stack.host.failNext('network', new HostError('network_failed', 'no nft yet', { retryable: true }))
    stack.host.restart()
    stack.startAgent()
    await until(
      () => stack.host.pendingFaults('network'),
      (pending) => pending === 0,
    )
    await stack.stopAgent()
    stack.host.restart()
    stack.startAgent()
    await until(
      () => stack.host.vmmOf(id),
      (vmm) => vmm !== null,
    )
    await stack.startServer()
    await stack.reach(id, 'ready')
  })

  test('with the server away leaves off what had powered itself off', async () => {
    await using stack = await startStack()
    const runs = await stack.createReady()
    const off = await stack.createReady()
    await stack.stopServer()
    vmmOf(stack, off.id).guestPowersOff()
    await until(
      () => stack.host.vmmOf(off.id),
      (vmm) => vmm === null,
    )
    await stack.stopAgent()
    stack.host.restart()
    stack.startAgent()
    await until(
      () => stack.host.vmmOf(runs.id),
      (vmm) => vmm !== null,
    )
    await stack.startServer()
    expect((await stack.reach(off.id, 'stopped')).status).toMatchObject({ reason: 'guest_shutdown', restarts: 0 })
    expect(stack.host.vmmOf(off.id)).toBeNull()
    await stack.reach(runs.id, 'ready')
  })
})
