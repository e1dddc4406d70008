import type { DesiredInstance } from '@berth/contract/hosts/agent-protocol.ts'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { expect, test } from 'vitest'
import { testImages } from '../../test/stack.ts'
import { defaultAgentSettings } from '../config.ts'
import { AgentMetrics } from '../report/metrics.ts'
import { SimulatedHost } from '../simulated/host.ts'
import { systemTimers } from '../sys/timers.ts'
import { desiredInstance } from '../testing/desired-instance.ts'
import type { Intent } from './intent.ts'
import { newRecord } from './record.ts'
import { InstanceWorker } from './worker.ts'

const instance = desiredInstance({ grace_seconds: 1, reboots: { count: 0, grace_seconds: 1 } })

const intent = (changes: Partial<DesiredInstance>): Intent => ({
  instance: { ...instance, ...changes },
  network: { vpc_id: 'vpc-a', cidr: '10.0.0.0/16', subnets: [] },
  image: testImages[0] ?? null,
})

test('a clock that is set back during a shutdown does not lengthen the grace', async () => {
  const host = new SimulatedHost()
  const record = newRecord(instance.id, 0, 'vpc-a')
  const { promise: runs, resolve: noteRunning } = Promise.withResolvers<void>()
  const { promise: off, resolve: noteOff } = Promise.withResolvers<void>()
  let aheadMs = 0
  const worker = new InstanceWorker(
    {
      driver: host,
      settings: defaultAgentSettings,
      metrics: new AgentMetrics(new Registry()),
      log: pino({ level: 'silent' }),
      now: () => Date.now() + aheadMs,
      timers: systemTimers,
      flushConsole: async () => {},
      reportProgress: () => {},
      save: ({ power }) => {
        if (power === 'off' && aheadMs < 0) noteOff()
      },
      note: ({ power }) => {
        if (power === 'running') noteRunning()
      },
    },
    record,
    intent({}),
  )
  worker.start()
  await runs
  const vmm = host.vmmOf(instance.id)
  if (vmm === null) throw new Error('no VMM runs')
  vmm.powerButton = async () => {
    aheadMs = -3_600_000 // and the guest does not hear it
  }
  worker.setIntent(intent({ generation: 2, power: 'stopped' }))
  await off
  expect(vmm.exited()).toBe(true)
  await worker.stop()
})
