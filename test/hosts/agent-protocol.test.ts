import {
  consoleChunkBytes,
  consolePostBytes,
  consolePostChunks,
  type Desired,
  type Observed,
  type ObservedInstance,
} from '@berth/contract/hosts/agent-protocol.ts'
import type { Instance } from '@berth/contract/instances/instances.ts'
import { describe, expect, test } from 'vitest'
import { observedRunning } from '../observed.ts'
import { type Stack, startStack } from '../stack.ts'

/** A report as an agent makes it. */
function report(sequence: number, instances: ObservedInstance[] = [], session = Date.now() + 60_000): Observed {
  return {
    agent_session: session,
    sequence,
    revision: 0,
    agent_version: 'test',
    hostname: 'test',
    hypervisor: 'simulated',
    accelerator: 'none',
    accelerator_reason: '',
    capacity: { vcpus: 10, memory_mb: 10_240, disk_gb: 100 },
    images: [],
    instances,
  }
}

const post = (stack: Stack, body: unknown, credential?: string) =>
  stack.agentApi('POST', '/v1/agent/observed', body, credential)

describe('credentials', () => {
  test('a wrong one, or none, is 401 on every route of the agent, and changes nothing', async () => {
    await using stack = await startStack({ agent: false })
    const { id } = await stack.create()
    for (const authorization of [
      null,
      'Bearer wrong',
      'Bearer ',
      stack.credential,
      `Basic ${stack.credential}`,
      `Bearer ${stack.credential}x`,
    ]) {
      for (const [method, path, body] of [
        ['GET', '/v1/agent/desired?since=0', undefined],
        ['POST', '/v1/agent/observed', report(1)],
        ['POST', '/v1/agent/console-logs', { chunks: [{ instance_id: id, offset: 0, data: '' }] }],
      ] as const) {
        const answer = await stack.api(method, path, body, { authorization })
        expect({ authorization, path, status: answer.status, code: answer.body.code }).toEqual({
          authorization,
          path,
          status: 401,
          code: 'unauthorized',
        })
        expect(answer.headers['content-type']).toBe('application/problem+json')
      }
    }
    expect((await stack.hostDocument()).status.last_seen_at).toBe('')
  })

  test('they are checked before the body is', async () => {
    await using stack = await startStack({ agent: false })
    expect((await post(stack, { nonsense: true }, 'wrong')).status).toBe(401)
  })
})

describe('reports', () => {
  test('of a lower sequence or an older session are 409 and change nothing', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.stopAgent()
    const session = Date.now() + 60_000
    expect((await post(stack, report(5, [observedRunning(id)], session))).status).toBe(204)
    const before = (await stack.get(id)).status
    const down = observedRunning(id, { power: 'off', off_cause: 'guest' })
    for (const stale of [report(4, [down], session), report(5, [down], session), report(99, [down], session - 1)]) {
      const { status, body } = await post(stack, stale)
      expect({ status, code: body.code }).toEqual({ status: 409, code: 'stale_report' })
      expect((await stack.get(id)).status).toEqual(before)
    }
    expect((await post(stack, report(6, [down], session))).status).toBe(204)
    expect((await stack.get(id)).status.state).toBe('stopped')
  })

  test('that were made under an older intent do not end a newer operation', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.stopAgent()
    const stop = await stack.act(id, 'stop')
    const start = await stack.act(id, 'start')
    // the guest went off before the host heard of either
    await post(stack, report(1, [observedRunning(id, { power: 'off', off_cause: 'guest', seen_generation: 1 })]))
    expect((await stack.operation(start)).status).toBe('pending')
    expect((await stack.operation(stop)).status).toBe('cancelled')
    expect((await stack.get(id)).metadata.generation).toBe(3)
  })

  test('of another host about an instance change nothing', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    const before = await stack.get(id)
    const foreign = report(1, [observedRunning(id, { power: 'absent', restarts: 7 })])
    const { status } = await post(stack, foreign, stack.otherHost.credential)
    expect(status).toBe(204)
    expect(await stack.get(id)).toEqual(before)
  })

  test('with serial output of an instance that another host has, or nobody, store none of that', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.stopAgent()
    const text = async () => (await stack.api('GET', `/v1/instances/${id}/console-log`)).text
    const before = await text()
    const forged = { offset: 0, data: Buffer.from('forged\n'.repeat(100)).toString('base64') }
    const unknown = { ...forged, instance_id: 'inst-00000000000000000000' }
    const foreign = await stack.agentApi(
      'POST',
      '/v1/agent/console-logs',
      { chunks: [{ ...forged, offset: before.length, instance_id: id }, unknown] },
      stack.otherHost.credential,
    )
    expect({ status: foreign.status, body: foreign.body }).toEqual({
      status: 200,
      body: { next_offsets: [null, null] },
    })
    const own = { instance_id: id, offset: before.length, data: Buffer.from('own\n').toString('base64') }
    const mixed = await stack.agentApi('POST', '/v1/agent/console-logs', { chunks: [unknown, own] })
    expect(mixed.body).toEqual({ next_offsets: [null, before.length + 4] })
    expect(await text()).toBe(`${before}own\n`)
  })

  test('with more or larger chunks of serial output than one post may have are refused', async () => {
    await using stack = await startStack({ agent: false })
    const chunk = { instance_id: 'inst-00000000000000000000', offset: 0, data: '' }
    const refused = async (chunks: object[]) =>
      (await stack.agentApi('POST', '/v1/agent/console-logs', { chunks })).status
    expect(await refused(Array(consolePostChunks).fill(chunk))).toBe(200)
    expect(await refused(Array(consolePostChunks + 1).fill(chunk))).toBe(422)
    expect(await refused([{ ...chunk, data: Buffer.alloc(consoleChunkBytes + 3).toString('base64') }])).toBe(422)
    const largest = { ...chunk, data: Buffer.alloc(consoleChunkBytes).toString('base64') }
    expect(await refused(Array(consolePostBytes / consoleChunkBytes).fill(largest))).toBe(200)
    expect(await refused(Array(2 * (consolePostBytes / consoleChunkBytes)).fill(largest))).toBe(413)
  })

  test('of instances nobody knows are ignored', async () => {
    await using stack = await startStack({ agent: false })
    expect((await post(stack, report(1, [observedRunning('inst-00000000000000000000')]))).status).toBe(204)
    expect(await stack.list()).toEqual([])
  })

  test('that leave an instance out do not end it', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.stopAgent()
    expect((await post(stack, report(1))).status).toBe(204)
    expect((await stack.get(id)).status.state).toBe('running')
  })

  test('of absence free nothing while the instance is wanted', async () => {
    await using stack = await startStack()
    const { id, status } = await stack.createReady()
    await stack.stopAgent()
    await post(stack, report(1, [observedRunning(id, { power: 'absent' })]))
    const lost = await stack.get(id)
    expect(lost.status).toMatchObject({ state: 'provisioning', private_ip: status.private_ip })
    expect((await stack.hostDocument()).status.allocated.vcpus).toBe(1)
  })

  test('of a first boot that failed make ready impossible, and say why', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.stopAgent()
    const unknown = { status: 'unknown', reason: '', message: '', at: 0 } as const
    await post(stack, report(1, [observedRunning(id, { conditions: { GuestReady: unknown } })], Date.now() + 60_000))
    const waiting = stack.api<Instance>('GET', `/v1/instances/${id}?wait_for=ready&timeout=10`)
    const failed = { status: 'false', reason: 'user_data_failed', message: 'exit code 3', at: 0 } as const
    await post(stack, report(2, [observedRunning(id, { conditions: { GuestReady: failed } })], Date.now() + 120_000))
    const { headers, body } = await waiting
    expect(headers['berth-wait']).toBe('impossible')
    expect(body.status.state).toBe('running')
    expect(body.status.conditions.at(-1)).toMatchObject({ type: 'GuestReady', status: 'false', message: 'exit code 3' })
    expect((await stack.operation(body.operation_id)).status).toBe('succeeded')
  })

  test('with fields that are not known, or wrong, are 422', async () => {
    await using stack = await startStack({ agent: false })
    for (const wrong of [
      { ...report(1), extra: 1 },
      { ...report(1), sequence: -1 },
      { ...report(1), hypervisor: 'xen' },
      report(1, [observedRunning('inst-1')]),
      report(1, [observedRunning('inst-00000000000000000000', { restarts: 1.5 })]),
    ]) {
      expect((await post(stack, wrong)).status).toBe(422)
    }
  })
})

describe('the desired state', () => {
  test('names what a host has to do, and only what is placed on it', async () => {
    await using stack = await startStack()
    await stack.ensureExamples()
    const spec = { ssh_key_ids: ['key-001'], subnet_id: 'subnet-def456' }
    const { id, operation_id } = await stack.create(spec, { name: 'web' })
    await stack.reach(id, 'ready')
    const { body } = await stack.agentApi<Desired>('GET', '/v1/agent/desired?since=0')
    expect(body.instances).toEqual([
      {
        id,
        operation_id,
        generation: 1,
        power: 'running',
        power_since: 1,
        grace_seconds: 60,
        reboots: { count: 0, grace_seconds: 60 },
        hostname: 'web',
        type: 'micro',
        image_id: 'micro',
        vcpus: 1,
        memory_mb: 256,
        disk_gb: 2,
        vpc_id: 'vpc-abc123',
        subnet_id: 'subnet-def456',
        private_ip: '10.0.1.4',
        mac: expect.stringMatching(/^06(:[0-9a-f]{2}){5}$/),
        security_groups: ['sg-default'],
        public_ip: '',
        bandwidth_mbps: 1000,
        ssh_public_keys: [expect.stringMatching(/^ssh-ed25519 /)],
        user_data: '',
        on_panic: 'restart',
      },
    ])
    expect(body.networks).toEqual([
      {
        vpc_id: 'vpc-abc123',
        cidr: '10.0.0.0/16',
        subnets: [{ id: 'subnet-def456', cidr: '10.0.1.0/24', gateway: '10.0.1.1' }],
      },
    ])
    expect(body.security_groups).toEqual([
      {
        id: 'sg-default',
        rules: [
          { direction: 'ingress', protocol: 'any', ports: null, remote: { security_group: 'sg-default' } },
          { direction: 'egress', protocol: 'any', ports: null, remote: { cidr: '0.0.0.0/0' } },
        ],
      },
    ])
    expect(body.images.map((image) => image.id)).toEqual(['micro'])
    const other = await stack.agentApi<Desired>(
      'GET',
      '/v1/agent/desired?since=0',
      undefined,
      stack.otherHost.credential,
    )
    expect(other.body.instances).toEqual([])
  })

  test('is new when a group that an instance carries gets other rules, and only then', async () => {
    await using stack = await startStack()
    await stack.api('POST', '/v1/security-groups', { id: 'sg-web' })
    await stack.api('POST', '/v1/security-groups', { id: 'sg-ssh' })
    await stack.createReady({ security_groups: ['sg-web'] })
    const read = async () => (await stack.agentApi<Desired>('GET', '/v1/agent/desired?since=0')).body
    const before = await read()
    const rules = [{ direction: 'ingress', protocol: 'tcp', remote: { cidr: '0.0.0.0/0' }, description: '' }]
    await stack.api('PATCH', '/v1/security-groups/sg-ssh', { spec: { rules } })
    await stack.api('PATCH', '/v1/security-groups/sg-web', { spec: { description: 'other words' } })
    expect((await read()).revision).toBe(before.revision)
    await stack.api('PATCH', '/v1/security-groups/sg-web', { spec: { rules } })
    const after = await read()
    expect(after.revision).toBeGreaterThan(before.revision)
    const rule = { direction: 'ingress', protocol: 'tcp', ports: null, remote: { cidr: '0.0.0.0/0' } }
    expect(after.security_groups).toEqual([{ id: 'sg-web', rules: [rule] }])
  })

  test('leaves out what was removed', async () => {
    await using stack = await startStack()
    const { id } = await stack.createReady()
    await stack.ended(await stack.delete(id))
    const { body } = await stack.agentApi<Desired>('GET', '/v1/agent/desired?since=0')
    expect(body.instances).toEqual([])
    expect(body.networks).toEqual([])
  })

  test('is told at once to a host whose revision is of a later life of the database', async () => {
    await using stack = await startStack({ agent: false })
    // as after a restore from a backup: the host has seen more than the server remembers
    const asked = stack.agentApi<Desired>('GET', '/v1/agent/desired?since=1000000')
    const late = new Promise<null>((resolve) => setTimeout(() => resolve(null), 5000).unref())
    expect((await Promise.race([asked, late]))?.status).toBe(200)
  })
})
