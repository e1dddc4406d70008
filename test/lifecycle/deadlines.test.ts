import { type AgentSettings, defaultAgentSettings, type hostSteps } from '@berth/agent/config.ts'
import { HostError } from '@berth/agent/host-driver.ts'
import { failureCatalogue } from '@berth/contract/errors.ts'
import { defaultSettings } from '@berth/server/config.ts'
import { describe, expect, test } from 'vitest'
import { type Stack, startStack, TestClock, until } from '../stack.ts'

const steps = { image: 'image', disk: 'disk', network: 'network', start: 'boot' } as const
const points = ['image', 'disk', 'network', 'start'] as const

/** What a step that hangs is reported as. A download is not tried again: it has had its own attempts. */
const outcome = {
  image: { code: 'image_deadline_exceeded', attempts: 1 },
  disk: { code: 'step_deadline_exceeded', attempts: 3 },
  network: { code: 'step_deadline_exceeded', attempts: 3 },
  start: { code: 'boot_deadline_exceeded', attempts: 3 },
} as const

/** An agent that soon loses its patience with some steps. */
function impatient(...hasty: (keyof AgentSettings['deadlinesMs'])[]): Partial<AgentSettings> {
  const deadlinesMs = { ...defaultAgentSettings.deadlinesMs }
  for (const step of hasty) deadlinesMs[step] = 40
  return { deadlinesMs, windDownMs: 20, retryPausesMs: [1, 1] }
}

async function expectNothingHeld(stack: Stack): Promise<void> {
  expect(stack.host.leftovers()).toEqual([])
  expect((await stack.hostDocument()).status.allocated).toEqual({ vcpus: 0, memory_mb: 0, disk_gb: 0 })
}

describe('a step of a create that hangs', () => {
  test.each(points)('%s: the create ends with the cause and a hint, and holds nothing', async (point) => {
    await using stack = await startStack({ agentSettings: impatient(steps[point]) })
    stack.hold(point)
    const { id, operation_id: op } = await stack.create()
    const operation = await stack.ended(op)
    const { code, attempts } = outcome[point]
    expect(operation).toMatchObject({
      status: 'failed',
      error: { code, message: `The step ${steps[point]} did not end within 40 ms`, hint: failureCatalogue[code] },
    })
    expect(operation.steps.find((step) => step.name === steps[point])).toMatchObject({
      status: 'failed',
      attempt: attempts,
      error: { code },
    })
    expect((await stack.reach(id, 'terminated')).status.reason).toBe(code)
    await expectNothingHeld(stack)
  })

  test.each(points)('%s, deaf to being told to end: the same, also when it ends long after', async (point) => {
    await using stack = await startStack({ agentSettings: impatient(steps[point]) })
    const release = stack.hold(point, { deaf: true })
    const { id, operation_id: op } = await stack.create()
    const operation = await stack.ended(op)
    expect(operation).toMatchObject({ status: 'failed', error: { code: outcome[point].code } })
    if (point !== 'image') expect(operation.error?.message).toContain('an earlier attempt still hangs')
    await stack.reach(id, 'terminated')
    await expectNothingHeld(stack)
    release()
    // what it makes after all is removed again
    await new Promise((resolve) => setImmediate(resolve))
    await until(
      () => stack.host.leftovers(),
      (left) => left.length === 0,
    )
    expect((await stack.get(id)).status.state).toBe('terminated')
  })

  test.each(['disk', 'network', 'start'] as const)('%s, once: another attempt brings it on', async (point) => {
    await using stack = await startStack({ agentSettings: impatient(steps[point]) })
    const release = stack.hold(point)
    const { id, operation_id: op } = await stack.create()
    await stack.stepRuns(op, steps[point], 2)
    release()
    expect(await stack.ended(op)).toMatchObject({ status: 'succeeded' })
    await stack.reach(id, 'ready')
  })

  test('start: no other VMM is started beside one that may still come, and a late one is ended', async () => {
    // the second attempt has time enough to wait for the first
    const deadlinesMs = { ...defaultAgentSettings.deadlinesMs, boot: 500 }
    await using stack = await startStack({ agentSettings: { ...impatient(), deadlinesMs } })
    const releaseFirst = stack.hold('start', { deaf: true })
    const { id, operation_id: op } = await stack.create()
    await stack.stepRuns(op, 'boot')
    stack.hold('start')() // only the call that hangs already is held
    await stack.stepRuns(op, 'boot', 2)
    expect(stack.host.vmmOf(id)).toBeNull()
    releaseFirst()
    expect(await stack.ended(op)).toMatchObject({ status: 'succeeded' })
    await stack.reach(id, 'ready')
    await stack.ended(await stack.delete(id))
    const { text } = await stack.api('GET', `/v1/instances/${id}/console-log`)
    expect(text.match(/Linux version/g)).toHaveLength(2) // the late one was there, and went
  })

  test('start, of an instance that has run: it is stopped with the cause, and starts when asked again', async () => {
    await using stack = await startStack({ agentSettings: impatient('boot') })
    const { id } = await stack.createReady()
    await stack.ended(await stack.act(id, 'stop'))
    const release = stack.hold('start', { deaf: true })
    const failed = await stack.ended(await stack.act(id, 'start'))
    expect(failed).toMatchObject({ status: 'failed', error: { code: 'boot_deadline_exceeded', retryable: true } })
    const stopped = await stack.reach(id, 'stopped')
    expect(stopped.status.reason).toBe('boot_deadline_exceeded')
    expect(stopped.status.conditions).toContainEqual(
      expect.objectContaining({ type: 'Booted', status: 'false', reason: 'boot_deadline_exceeded' }),
    )
    release()
    expect(await stack.ended(await stack.act(id, 'start'))).toMatchObject({ status: 'succeeded' })
    expect((await stack.reach(id, 'ready')).status.reason).toBe('')
  })
})

describe('a power-off that does not come', () => {
  test('fails the stop with the cause and a hint; the instance is stopped when it comes after all', async () => {
    await using stack = await startStack({ agentSettings: impatient('shutdown') })
    const { id } = await stack.createReady()
    const release = stack.hold('quit')
    const stop = await stack.ended(await stack.act(id, 'stop', { force: true }))
    expect(stop).toMatchObject({
      status: 'failed',
      error: { code: 'power_off_failed', hint: failureCatalogue.power_off_failed, retryable: true },
    })
    expect(stop.steps).toMatchObject([{ name: 'shutdown', status: 'failed', error: { code: 'power_off_failed' } }])
    expect((await stack.get(id)).status.state).toBe('stopping')
    release()
    const { status } = await stack.reach(id, 'stopped')
    expect(status).toMatchObject({ reason: '', restarts: 0 })
    expect(await stack.ended(await stack.act(id, 'start'))).toMatchObject({ status: 'succeeded' })
  })

  test('fails a reboot, and nothing is started beside the old VMM', async () => {
    await using stack = await startStack({ agentSettings: impatient('shutdown') })
    const { id } = await stack.createReady()
    const vmm = stack.host.vmmOf(id)
    const release = stack.hold('quit')
    const reboot = await stack.ended(await stack.act(id, 'reboot', { force: true }))
    expect(reboot).toMatchObject({ status: 'failed', error: { code: 'power_off_failed' } })
    expect(stack.host.vmmOf(id)).toBe(vmm)
    release()
    expect((await stack.reach(id, 'stopped')).status.reason).toBe('power_off_failed')
    expect(await stack.ended(await stack.act(id, 'start'))).toMatchObject({ status: 'succeeded' })
  })

  test('after the guest has powered itself off is the same', async () => {
    await using stack = await startStack({ agentSettings: impatient('shutdown') })
    const { id } = await stack.createReady()
    const release = stack.hold('quit')
    stack.host.vmmOf(id)?.guestPowersOff()
    const stuck = await until(
      () => stack.get(id),
      ({ status }) => status.reason !== '',
    )
    expect(stuck.status).toMatchObject({ reason: 'power_off_failed', state: 'stopping' })
    release()
    await stack.reach(id, 'stopped')
  })

  test('of a VMM that does not even answer the power button has its grace and no more', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const vmm = stack.host.vmmOf(id)
    if (vmm !== null) vmm.isSilent = true
    expect(await stack.ended(await stack.act(id, 'stop', { grace_seconds: 1 }))).toMatchObject({ status: 'succeeded' })
  })
})

describe('a clean-up that hangs', () => {
  test('is tried again, until the instance is gone', async () => {
    await using stack = await startStack({ agentSettings: impatient('clean-up') })
    const { id } = await stack.createReady()
    const release = stack.hold('remove')
    const deletion = await stack.delete(id)
    await stack.stepRuns(deletion, 'clean-up', 2)
    release()
    expect(await stack.ended(deletion)).toMatchObject({ status: 'succeeded' })
    await expectNothingHeld(stack)
  })

  test('ends the delete operation with the cause at its deadline; the instance goes when it can', async () => {
    const clock = new TestClock()
    await using stack = await startStack({
      now: clock.now,
      settings: { hostUnreachableMs: 1e12 },
      agentSettings: impatient('clean-up'),
    })
    const { id } = await stack.createReady()
    const release = stack.hold('remove')
    const deletion = await stack.delete(id)
    await stack.stepRuns(deletion, 'clean-up', 2)
    clock.advance(11 * 60_000)
    const operation = await stack.ended(deletion)
    expect(operation).toMatchObject({ status: 'failed', error: { code: 'deadline_exceeded' } })
    expect(operation.error?.message).toMatch(/ in step clean-up: The step clean-up did not end within 40 ms/)
    release()
    await stack.reach(id, 'terminated')
    await expectNothingHeld(stack)
  })

  test('fails with its own cause when it does not hang but fails', async () => {
    await using stack = await startStack({ agentSettings: impatient() })
    const { id } = await stack.createReady()
    stack.host.failNext('remove', new HostError('clean_up_failed', 'the tap is busy', { retryable: true }))
    const deletion = await stack.delete(id)
    const step = await until(
      async () => (await stack.operation(deletion)).steps.find((each) => each.name === 'clean-up'),
      (each) => each?.error !== null,
    )
    expect(step).toMatchObject({ error: { code: 'clean_up_failed', message: 'the tap is busy' } })
    expect(await stack.ended(deletion)).toMatchObject({ status: 'succeeded' })
  })
})

describe('the deadlines', () => {
  test('of the steps, with all their attempts, are over before those of the operations', () => {
    const { deadlinesMs, windDownMs, retryPausesMs } = defaultAgentSettings
    const pausesMs = retryPausesMs.reduce((sum, pause) => sum + pause, 0)
    const attempts = retryPausesMs.length + 1
    const longestMs = (step: (typeof hostSteps)[number]) =>
      step === 'image' ? deadlinesMs.image + windDownMs : attempts * (deadlinesMs[step] + windDownMs) + pausesMs
    const disk = longestMs('disk') + longestMs('network') + longestMs('boot')
    expect(longestMs('image') + disk).toBeLessThan(defaultSettings.deadlinesMs['instance.create'])
    expect(disk).toBeLessThan(defaultSettings.deadlinesMs['instance.start'])
    const powerOff = deadlinesMs.shutdown + windDownMs
    expect(powerOff + longestMs('boot')).toBeLessThan(defaultSettings.deadlinesMs['instance.reboot'])
    expect(powerOff).toBeLessThan(defaultSettings.deadlinesMs['instance.stop'])
    expect(powerOff + longestMs('clean-up')).toBeLessThan(defaultSettings.deadlinesMs['instance.delete'])
  })

  test('keep an agent from waiting for ever for a call that hangs when it stops', async () => {
    await using stack = await startStack({ agentSettings: impatient() })
    stack.hold('disk', { deaf: true })
    const { operation_id: op } = await stack.create()
    await stack.stepRuns(op, 'disk')
    await stack.stopAgent()
    stack.hold('disk')()
    stack.startAgent()
    expect(await stack.ended(op)).toMatchObject({ status: 'succeeded' })
  })
})
