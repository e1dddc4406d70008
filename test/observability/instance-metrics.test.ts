import type { InstanceMetrics } from '@berth/contract/instances/usage.ts'
import { expect, test } from 'vitest'
import { startStack, until } from '../stack.ts'

const figures = {
  cpu_ms: 1500,
  memory_bytes: 300,
  disk_read_bytes: 10,
  disk_written_bytes: 20,
}

test('an instance that runs shows what its host counted last, and one that does not shows nothing', async () => {
  await using stack = await startStack({ agentSettings: { usageEveryMs: 10 } })
  const { id } = await stack.createReady()
  const vmm = stack.host.vmmOf(id)
  if (vmm === null) throw new Error('it runs')
  vmm.usage = async () => figures
  stack.host.traffic = async () =>
    new Map([
      [
        (await stack.get(id)).status.network.interface,
        { received_bytes: 1, received_packets: 2, sent_bytes: 3, sent_packets: 4 },
      ],
    ])
  stack.host.diskAllocated = async () => 4096
  const read = async () => (await stack.api<InstanceMetrics>('GET', `/v1/instances/${id}/metrics`)).body
  const metrics = await until(read, ({ network }) => network.received_bytes_total === 1)
  expect(metrics).toEqual({
    instance_id: id,
    at: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
    cpu: { seconds_total: 1.5 },
    memory: { resident_bytes: 300 },
    disk: { allocated_bytes: 4096, read_bytes_total: 10, written_bytes_total: 20 },
    network: {
      received_bytes_total: 1,
      received_packets_total: 2,
      sent_bytes_total: 3,
      sent_packets_total: 4,
    },
  })
  await stack.ended(await stack.act(id, 'stop'))
  expect(await until(read, ({ at }) => at === '')).toMatchObject({ at: '', cpu: { seconds_total: 0 } })
})

test('an instance whose machine does not answer is left out, and the others are shown', async () => {
  await using stack = await startStack({ agentSettings: { usageEveryMs: 10 } })
  const [silent, other] = [await stack.createReady(), await stack.createReady()]
  const vmm = stack.host.vmmOf(silent.id)
  if (vmm === null) throw new Error('it runs')
  vmm.usage = () => Promise.reject(new Error('no answer'))
  const at = async (id: string) => (await stack.api<InstanceMetrics>('GET', `/v1/instances/${id}/metrics`)).body.at
  await until(
    async () => [await at(silent.id), await at(other.id)],
    ([none, some]) => none === '' && some !== '',
  )
})

test('an instance that waits for a host, and one that there is not', async () => {
  await using stack = await startStack({ agent: false })
  const { id } = await stack.create()
  expect((await stack.api<InstanceMetrics>('GET', `/v1/instances/${id}/metrics`)).body.at).toBe('')
  expect((await stack.api('GET', '/v1/instances/inst-00000000000000000000/metrics')).status).toBe(404)
  expect((await stack.api('GET', '/v1/instances/..%2f/metrics')).status).toBe(400)
})
