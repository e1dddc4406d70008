import type { Accepted, Instance } from '@berth/contract/instances/instances.ts'
import { describe, expect, test } from 'vitest'
import { type Stack, startStack } from '../stack.ts'

/** A wait that the test answers later: `settled` tells whether the server has answered already. */
function waitFor(stack: Stack, id: string, target: string, timeout = 10) {
  return stack.api<Instance>('GET', `/v1/instances/${id}?wait_for=${target}&timeout=${timeout}`)
}

describe('wait_for', () => {
  test('each target is reached, and says so', async () => {
    await using stack = await startStack()
    const { id } = await stack.create()
    for (const [target, state] of [
      ['running', 'running'],
      ['ready', 'running'],
    ] as const) {
      const { status, headers, body } = await waitFor(stack, id, target)
      expect([status, headers['berth-wait'], body.status.state]).toEqual([200, 'reached', state])
    }
    const stopped = waitFor(stack, id, 'stopped')
    await stack.act(id, 'stop')
    expect((await stopped).headers['berth-wait']).toBe('reached')
    expect((await stopped).body.status.state).toBe('stopped')
    const terminated = waitFor(stack, id, 'terminated')
    await stack.delete(id)
    expect((await terminated).headers['berth-wait']).toBe('reached')
    expect((await terminated).body.status.state).toBe('terminated')
  })

  test('without it there is no header and no wait', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create()
    expect((await stack.api('GET', `/v1/instances/${id}`)).headers['berth-wait']).toBeUndefined()
  })

  test.each(['running', 'ready', 'stopped', 'terminated'])(
    '%s that does not come is timed out, with the document',
    async (target) => {
      await using stack = await startStack({ agent: false })
      const created = await stack.create()
      const { status, headers, body } = await waitFor(stack, created.id, target, 0)
      expect([status, headers['berth-wait'], body.id]).toEqual([200, 'timed-out', created.id])
    },
  )

  test('a wait ends at its timeout', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create()
    const before = performance.now()
    expect((await waitFor(stack, id, 'running', 1)).headers['berth-wait']).toBe('timed-out')
    expect(performance.now() - before).toBeGreaterThanOrEqual(950)
  })

  test.each(['running', 'ready', 'stopped'])('%s is impossible as soon as the instance is deleted', async (target) => {
    await using stack = await startStack()
    stack.hold('image')
    const { id } = await stack.create()
    const waiting = waitFor(stack, id, target)
    await stack.delete(id)
    const { status, headers } = await waiting
    expect([status, headers['berth-wait']]).toEqual([200, 'impossible'])
    // and at once for whoever asks later
    await stack.reach(id, 'terminated')
    expect((await waitFor(stack, id, target)).headers['berth-wait']).toBe('impossible')
  })

  test('running and ready are impossible once the instance is to be stopped', async () => {
    await using stack = await startStack()
    stack.hold('image')
    const { id } = await stack.create()
    const waiting = [waitFor(stack, id, 'running'), waitFor(stack, id, 'ready')]
    await stack.act(id, 'stop')
    for (const { headers } of await Promise.all(waiting)) expect(headers['berth-wait']).toBe('impossible')
  })

  test('ready means the current boot', async () => {
    await using stack = await startStack({ host: { guestBootMs: 60_000 } })
    const { id } = await stack.create()
    await stack.reach(id, 'running')
    expect((await waitFor(stack, id, 'ready', 0)).headers['berth-wait']).toBe('timed-out')

    await using quick = await startStack()
    const ready = await quick.createReady()
    const release = quick.hold('start')
    const reboot = await quick.act(ready.id, 'reboot')
    await quick.stepRuns(reboot, 'boot')
    expect((await waitFor(quick, ready.id, 'ready', 0)).headers['berth-wait']).toBe('timed-out')
    release()
    const again = await quick.reach(ready.id, 'ready')
    expect(again.status.boot_timeline.guest_ready_at > ready.status.boot_timeline.guest_ready_at).toBe(true)
  })
})

describe('start, stop, reboot', () => {
  test.each(['start', 'stop', 'reboot'])('%s needs no body, with or without a content type', async (action) => {
    await using stack = await startStack({ agent: false })
    const json = { 'content-type': 'application/json' }
    for (const [body, headers] of [
      [undefined, {}],
      ['', {}],
      [undefined, json],
      ['', json],
      [' \n', json],
      [{}, json],
    ] as const) {
      const { id } = await stack.create()
      const answer = await stack.api<Accepted>('POST', `/v1/instances/${id}/${action}`, body, headers)
      expect(answer.status, `${JSON.stringify([body, headers])}: ${answer.text}`).toBe(202)
      expect(Object.keys(answer.body)).toEqual(['operation_id'])
    }
  })

  test('a stopped instance keeps its address and comes back with it', async () => {
    await using stack = await startStack()
    const before = await stack.createReady()
    const stop = await stack.ended(await stack.act(before.id, 'stop'))
    expect(stop).toMatchObject({ type: 'instance.stop', status: 'succeeded' })
    const stopped = await stack.get(before.id)
    expect(stopped.status).toMatchObject({ state: 'stopped', started_at: '', reason: '' })
    expect(stopped.status.private_ip).toBe(before.status.private_ip)
    expect(stopped.status.host_id).toBe(stack.hostId)
    expect(stack.host.vmmOf(before.id)).toBeNull()

    const start = await stack.ended(await stack.act(before.id, 'start'))
    expect(start).toMatchObject({ type: 'instance.start', status: 'succeeded' })
    const after = await stack.reach(before.id, 'ready')
    expect(after.status.private_ip).toBe(before.status.private_ip)
    expect(after.metadata.generation).toBe(3)
  })

  test('start when running and stop when stopped have succeeded already and change nothing', async () => {
    await using stack = await startStack()
    const { id, metadata } = await stack.createReady()
    const vmm = stack.host.vmmOf(id)
    const start = await stack.operation(await stack.act(id, 'start'))
    expect(start).toMatchObject({ type: 'instance.start', status: 'succeeded' })
    expect((await stack.get(id)).metadata.generation).toBe(metadata.generation)
    expect(stack.host.vmmOf(id)).toBe(vmm)

    const first = await stack.act(id, 'stop')
    await stack.ended(first)
    const second = await stack.act(id, 'stop')
    expect(second).not.toBe(first)
    expect(await stack.operation(second)).toMatchObject({ type: 'instance.stop', status: 'succeeded' })
    expect((await stack.get(id)).metadata.generation).toBe(metadata.generation + 1)
  })

  test('a second stop while the first goes on is the same operation', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const vmm = stack.host.vmmOf(id)
    if (vmm !== null) vmm.ignoresButton = true
    const first = await stack.act(id, 'stop', { grace_seconds: 3600 })
    expect(await stack.act(id, 'stop', { grace_seconds: 3600 })).toBe(first)
    // more urgent: a new intent, which replaces the first
    const forced = await stack.act(id, 'stop', { force: true })
    expect(await stack.ended(forced)).toMatchObject({ status: 'succeeded' })
    expect(await stack.operation(first)).toMatchObject({ status: 'cancelled', error: { code: 'superseded' } })
  })

  test('a forced stop needs no help of the guest', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const vmm = stack.host.vmmOf(id)
    if (vmm !== null) vmm.ignoresButton = true
    expect(await stack.ended(await stack.act(id, 'stop', { force: true }))).toMatchObject({ status: 'succeeded' })
    expect((await stack.get(id)).status.state).toBe('stopped')
  })

  test('a reboot boots anew, once, and keeps everything else', async () => {
    await using stack = await startStack()
    const before = await stack.createReady()
    const vmm = stack.host.vmmOf(before.id)
    const reboot = await stack.ended(await stack.act(before.id, 'reboot'))
    expect(reboot).toMatchObject({ type: 'instance.reboot', status: 'succeeded' })
    expect(reboot.steps.map((step) => [step.name, step.status, step.attempt])).toEqual([
      ['shutdown', 'succeeded', 1],
      ['boot', 'succeeded', 1],
    ])
    const after = await stack.reach(before.id, 'ready')
    expect(stack.host.vmmOf(before.id)).not.toBe(vmm)
    expect(vmm?.exited()).toBe(true)
    expect(after.status.private_ip).toBe(before.status.private_ip)
    expect(after.status.restarts).toBe(0)
    expect(after.status.started_at > before.status.started_at).toBe(true)
    expect((await stack.api('GET', `/v1/instances/${before.id}/console-log`)).status).toBe(200)
  })

  test('what is stopped cannot be rebooted', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create()
    await stack.act(id, 'stop')
    const { status, body } = await stack.api('POST', `/v1/instances/${id}/reboot`, {})
    expect({ status, code: body.code }).toEqual({ status: 409, code: 'invalid_state' })
  })

  test.each(['start', 'stop', 'reboot'])(
    '%s after a delete is refused, before and after it has ended',
    async (action) => {
      await using stack = await startStack()
      const { id } = await stack.createReady()
      const vmm = stack.host.vmmOf(id)
      if (vmm !== null) vmm.ignoresButton = true
      const deletion = await stack.delete(id, '?grace_seconds=3600')
      const early = await stack.api('POST', `/v1/instances/${id}/${action}`, {})
      expect({ status: early.status, code: early.body.code }).toEqual({ status: 409, code: 'invalid_state' })
      vmm?.guestPowersOff()
      await stack.ended(deletion)
      const late = await stack.api('POST', `/v1/instances/${id}/${action}`, {})
      expect({ status: late.status, code: late.body.code }).toEqual({ status: 409, code: 'invalid_state' })
      expect((await stack.get(id)).operation_id).toBe(deletion)
    },
  )

  test.each(['start', 'stop', 'reboot'])('%s of an unknown instance is 404', async (action) => {
    await using stack = await startStack({ agent: false })
    const { status, body } = await stack.api('POST', `/v1/instances/inst-00000000000000000000/${action}`, {})
    expect({ status, code: body.code }).toEqual({ status: 404, code: 'not_found' })
  })
})

describe('the console log', () => {
  test('is the text of the serial console, or its last lines', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    // its last bytes are handed over before a delete removes them
    await stack.delete(id)
    await stack.reach(id, 'terminated')
    const { status, headers, text } = await stack.api('GET', `/v1/instances/${id}/console-log`)
    expect(status).toBe(200)
    expect(headers['content-type']).toBe('text/plain; charset=utf-8')
    expect(headers['x-content-type-options']).toBe('nosniff')
    const [kernel, marker, ...rest] = text.split('\n')
    expect(kernel).toBe('Linux version 0.0 (simulated)')
    expect(marker).toMatch(/^BERTH-READY 1 \S+$/)
    expect(rest).toEqual([''])
    const tail = await stack.api('GET', `/v1/instances/${id}/console-log?tail=1`)
    expect(tail.text).toBe(`${marker}\n`)
    const more = await stack.api('GET', `/v1/instances/${id}/console-log?tail=100`)
    expect(more.text).toBe(text)
  })

  test('of an instance without output it is empty, of an unknown one 404', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create()
    const empty = await stack.api('GET', `/v1/instances/${id}/console-log`)
    expect([empty.status, empty.text]).toEqual([200, ''])
    const unknown = await stack.api('GET', '/v1/instances/inst-00000000000000000000/console-log')
    expect({ status: unknown.status, code: unknown.body.code }).toEqual({ status: 404, code: 'not_found' })
  })

  test('no byte is doubled or lost when posts are doubled, and the newest 256 KiB are kept', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.stopAgent()
    const post = async (offset: number, text: string) => {
      const chunks = [{ instance_id: id, offset, data: Buffer.from(text).toString('base64') }]
      const { body } = await stack.agentApi<{ next_offsets: number[] }>('POST', '/v1/agent/console-logs', { chunks })
      return body.next_offsets[0] ?? Number.NaN
    }
    let end = await post(0, '')
    const before = (await stack.api('GET', `/v1/instances/${id}/console-log`)).text
    const line = `${'x'.repeat(1023)}\n`
    expect(await post(end, 'first\n')).toBe(end + 6)
    expect(await post(end, 'first\n')).toBe(end + 6)
    expect((await stack.api('GET', `/v1/instances/${id}/console-log`)).text).toBe(`${before}first\n`)
    end += 6
    for (let i = 0; i < 5; i++) end = await post(end, line.repeat(64))
    const kept = await stack.api('GET', `/v1/instances/${id}/console-log`)
    expect(kept.text.length).toBe(256 * 1024)
    expect(kept.text.endsWith(line)).toBe(true)
  })
})
