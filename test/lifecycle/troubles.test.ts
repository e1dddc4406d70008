import { type AgentSettings, defaultAgentSettings } from '@berth/agent/config.ts'
import type { GuestState } from '@berth/agent/host-driver.ts'
import { failureCatalogue } from '@berth/contract/errors.ts'
import type { Condition, Instance } from '@berth/contract/instances/instances.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openEvents } from '../event-stream.ts'
import { scrape } from '../observability/metrics-text.ts'
import { type Stack, startStack, until } from '../stack.ts'

const crash = (policy: Partial<AgentSettings['crash']>) => ({
  agentSettings: { crash: { ...defaultAgentSettings.crash, ...policy } },
})

function vmmOf(stack: Stack, id: string) {
  const vmm = stack.host.vmmOf(id)
  if (vmm === null) throw new Error(`${id} has no VMM`)
  return vmm
}

function condition(instance: Instance, type: Condition['type']): Condition | undefined {
  return instance.status.conditions.find((candidate) => candidate.type === type)
}

/** Wait until the machine is said to be in a trouble. */
function troubled(stack: Stack, id: string, reason: string): Promise<Instance> {
  return until(
    () => stack.get(id),
    ({ status }) => status.reason === reason,
  )
}

describe('a machine that does not run its guest', () => {
  let stack: Stack
  let id: string
  beforeAll(async () => {
    stack = await startStack()
    id = (await stack.createReady({ on_panic: 'none' })).id
  })
  afterAll(async () => {
    await stack.close()
  })

  test.each([
    ['guest_panicked', 'false', 'false'],
    ['internal_error', 'false', 'false'],
    ['suspended', 'false', 'unknown'],
    ['paused', 'false', 'unknown'],
    ['io_error', 'false', 'unknown'],
    ['storage_full', 'false', 'unknown'],
    ['unreachable', 'unknown', 'unknown'],
  ] as const)(
    'says %s in its conditions, its reason, an event and a figure, and all is as before when it ends',
    async (trouble, booted, ready) => {
      const before = await stack.reach(id, 'ready')
      const events = await openEvents(stack.port, `?resource_id=${id}`)
      vmmOf(stack, id).becomes(trouble)
      const down = await troubled(stack, id, trouble)
      expect(down.status).toMatchObject({ state: 'running', started_at: before.status.started_at, restarts: 0 })
      expect(condition(down, 'Booted')).toMatchObject({ status: booted, reason: trouble })
      expect(condition(down, 'GuestReady')).toMatchObject({ status: ready, reason: trouble })
      const since = condition(down, 'Booted')?.at
      expect(down.status.message).toBe(`${failureCatalogue[trouble]} (since ${since})`)
      await events.until(() => events.events.some(({ data }) => data.detail.reason === trouble))
      events.drop()
      expect((await scrape(stack)).value('berth_agent_machines_in_trouble', { reason: trouble })).toBe(1)

      vmmOf(stack, id).becomes('running')
      // a wait would be told at once that a boot which has ended cannot become ready
      await until(
        () => stack.get(id),
        ({ status }) => status.reason === '',
      )
      const after = await stack.reach(id, 'ready')
      expect(after.status).toMatchObject({ reason: '', message: '', restarts: 0 })
      expect(condition(after, 'Booted')).toMatchObject({ status: 'true', reason: '' })
      expect(condition(after, 'GuestReady')).toMatchObject({
        ...condition(before, 'GuestReady'),
        at: expect.any(String),
      })
    },
  )

  test('is not waited for to become ready in a boot that has ended, and is where it may go on', async () => {
    const wait = (timeout: number) =>
      stack.api<Instance>('GET', `/v1/instances/${id}?wait_for=ready&timeout=${timeout}`)
    vmmOf(stack, id).becomes('guest_panicked')
    await troubled(stack, id, 'guest_panicked')
    expect((await wait(60)).headers['berth-wait']).toBe('impossible')
    vmmOf(stack, id).becomes('storage_full')
    await troubled(stack, id, 'storage_full')
    expect((await wait(0)).headers['berth-wait']).toBe('timed-out')
    const waiting = wait(60)
    vmmOf(stack, id).becomes('running')
    expect((await waiting).headers['berth-wait']).toBe('reached')
  })

  test('is known as such to an agent that is started again', async () => {
    await stack.stopAgent()
    vmmOf(stack, id).becomes('unreachable')
    const vmm = stack.host.vmmOf(id)
    stack.startAgent()
    const down = await troubled(stack, id, 'unreachable')
    expect(down.status).toMatchObject({ state: 'running', restarts: 0 })
    expect(stack.host.vmmOf(id)).toBe(vmm)
    vmmOf(stack, id).becomes('running')
    await stack.reach(id, 'ready')
    expect(stack.host.vmmOf(id)).toBe(vmm)
  })

  test('and panicked is started again by a reboot without a grace, since it hears no button', async () => {
    const vmm = vmmOf(stack, id)
    vmm.becomes('guest_panicked')
    await troubled(stack, id, 'guest_panicked')
    expect(await stack.ended(await stack.act(id, 'reboot', { grace_seconds: 3600 }))).toMatchObject({
      status: 'succeeded',
    })
    expect((await stack.reach(id, 'ready')).status).toMatchObject({ reason: '', restarts: 0 })
    expect(vmm.exited()).toBe(true)
  })

  test.each(['unreachable', 'suspended', 'guest_panicked'] as const)(
    'can be stopped while it is %s, and started again',
    async (trouble: GuestState) => {
      const vmm = vmmOf(stack, id)
      vmm.becomes(trouble)
      await troubled(stack, id, trouble)
      expect(await stack.ended(await stack.act(id, 'stop', { grace_seconds: 0 }))).toMatchObject({
        status: 'succeeded',
      })
      expect((await stack.get(id)).status).toMatchObject({ state: 'stopped', reason: '' })
      expect(vmm.exited()).toBe(true)
      await stack.act(id, 'start')
      expect((await stack.reach(id, 'ready')).status.reason).toBe('')
    },
  )
})

describe('a machine that was being started when its agent was killed', () => {
  test('and does not answer the next one is not started a second time; it runs once it answers', async () => {
    await using stack = await startStack()
    const release = stack.hold('start')
    const { id, operation_id: create } = await stack.create()
    await stack.stepRuns(create, 'boot')
    const { id: deleted, operation_id: other } = await stack.create()
    await stack.stepRuns(other, 'boot')
    await stack.killAgent(release)
    for (const one of [id, deleted]) vmmOf(stack, one).becomes('unreachable')
    const vmm = stack.host.vmmOf(id)
    await stack.delete(deleted)
    stack.startAgent()
    await stack.reach(deleted, 'terminated')
    expect(stack.host.vmmOf(deleted)).toBeNull()
    expect((await troubled(stack, id, 'unreachable')).status).toMatchObject({ state: 'provisioning', started_at: '' })
    expect((await stack.operation(create)).status).toBe('running')
    vmmOf(stack, id).becomes('running')
    await stack.reach(id, 'ready')
    expect((await stack.ended(create)).status).toBe('succeeded')
    expect(stack.host.vmmOf(id)).toBe(vmm)
  })
})

describe('a guest that panics', () => {
  test('is started again after a pause by default, and is stopped when it panics again and again', async () => {
    await using stack = await startStack(crash({ firstPauseMs: 1, maxQuickDeaths: 2 }))
    const instance = await stack.createReady()
    expect(instance.spec.on_panic).toBe('restart')
    const first = vmmOf(stack, instance.id)
    first.becomes('guest_panicked')
    const again = await until(
      () => stack.get(instance.id),
      ({ status }) => status.restarts === 1 && status.state === 'running',
    )
    expect(again.status.reason).toBe('')
    expect(first.exited()).toBe(true)
    await stack.reach(instance.id, 'ready')
    vmmOf(stack, instance.id).becomes('internal_error')
    expect((await stack.reach(instance.id, 'stopped')).status).toMatchObject({
      reason: 'crash_loop',
      message: 'The guest failed within 60 s of its start 2 times in a row.',
      restarts: 2,
    })
  })

  test('says so during the pause before it is started again', async () => {
    await using stack = await startStack(crash({ firstPauseMs: 600_000 }))
    const { id } = await stack.createReady()
    vmmOf(stack, id).becomes('guest_panicked')
    const down = await until(
      () => stack.get(id),
      ({ status }) => status.restarts === 1,
    )
    expect(down.status).toMatchObject({ state: 'provisioning', reason: 'guest_panicked' })
    expect(condition(down, 'Booted')).toMatchObject({ status: 'false', reason: 'guest_panicked' })
    expect(await stack.ended(await stack.act(id, 'reboot'))).toMatchObject({ status: 'succeeded' })
    await stack.reach(id, 'ready')
  })

  test.each(['guest_panicked', 'internal_error'] as const)(
    'by on_panic stop is stopped with the reason %s, and starts when it is asked to',
    async (reason) => {
      await using stack = await startStack()
      const { id } = await stack.createReady({ on_panic: 'stop' })
      vmmOf(stack, id).becomes(reason)
      const { status } = await stack.reach(id, 'stopped')
      expect(status).toMatchObject({ reason, message: failureCatalogue[reason], restarts: 0 })
      expect(stack.host.vmmOf(id)).toBeNull()
      expect(await stack.ended(await stack.act(id, 'start'))).toMatchObject({ status: 'succeeded' })
      expect((await stack.reach(id, 'ready')).status.reason).toBe('')
    },
  )

  test('by on_panic stop is stopped also when its agent was killed after it had ended the process', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady({ on_panic: 'stop' })
    const release = stack.hold('quit')
    vmmOf(stack, id).becomes('guest_panicked')
    await troubled(stack, id, 'guest_panicked')
    await stack.killAgent(release)
    expect(stack.host.vmmOf(id)).toBeNull()
    stack.startAgent()
    expect((await stack.reach(id, 'stopped')).status).toMatchObject({ reason: 'guest_panicked', restarts: 0 })
  })

  test('with the server away is stopped by what its agent knows, and stays so', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady({ on_panic: 'stop' })
    await stack.stopServer()
    vmmOf(stack, id).becomes('guest_panicked')
    await until(
      () => stack.host.vmmOf(id),
      (vmm) => vmm === null,
    )
    await stack.stopAgent()
    stack.startAgent()
    await stack.startServer()
    expect((await stack.reach(id, 'stopped')).status).toMatchObject({ reason: 'guest_panicked', restarts: 0 })
  })
})
