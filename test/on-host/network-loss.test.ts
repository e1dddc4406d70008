import { runCommand } from '@berth/agent/sys/run-command.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DevProcess } from './dev-process.ts'

let dev: DevProcess
let id: string

beforeAll(async () => {
  dev = await DevProcess.open()
  id = await dev.create({}, 'web-1')
  await dev.reach(id, 'ready')
})

afterAll(() => dev.down()) // which fails when anything is left over

const run = async (line: string) => (await runCommand(line.split(' '))).stdout

/** Times that an object was put right so far, by the metric of the agent. */
async function repairs(object: string): Promise<number> {
  const text = await (await fetch(`${dev.url}/metrics`)).text()
  const value = new RegExp(`^berth_agent_network_repairs_total\\{object="${object}"\\} (\\d+)$`, 'm').exec(text)?.[1]
  if (value === undefined) throw new Error(`there is no counter of ${object}`)
  return Number(value)
}

/** Wait until an object was put right once more than `before`; the test's own time limit ends it. */
async function repairedSince(object: string, before: number): Promise<void> {
  while ((await repairs(object)) <= before) await new Promise((resolve) => setTimeout(resolve, 100))
}

async function networkReady() {
  return (await dev.get(id)).status.conditions.find(({ type }) => type === 'NetworkReady')
}

test('a namespace whose name is removed under a running machine is named again, and the machine is where it was', async () => {
  const { netns } = (await dev.get(id)).status.network
  const bootId = await dev.ssh(id, 'cat /proc/sys/kernel/random/boot_id')
  const before = await repairs('namespace')
  await run(`ip netns del ${netns}`)
  await repairedSince('namespace', before)
  expect(await dev.ssh(id, 'cat /proc/sys/kernel/random/boot_id')).toBe(bootId)
  expect(await networkReady()).toMatchObject({ status: 'true' })
})

test('a machine whose tap is removed says so, and is connected again by a reboot', async () => {
  const { netns, interface: tap } = (await dev.get(id)).status.network
  const before = await repairs('tap')
  await run(`ip -netns ${netns} link del ${tap}`)
  await repairedSince('tap', before)
  while ((await networkReady())?.status !== 'false') await new Promise((resolve) => setTimeout(resolve, 100))
  expect(await networkReady()).toMatchObject({ reason: 'tap_lost' })
  await dev.operation(await dev.act(id, 'reboot', { force: true }))
  await dev.reach(id, 'ready')
  expect(await networkReady()).toMatchObject({ status: 'true' })
  expect(await dev.ssh(id, 'hostname')).toBe('web-1')
  const events = await runCommand([
    ...'./berth --server'.split(' '),
    dev.url,
    ...'event watch --after 0 --type host.repaired --count 2 -o json'.split(' '),
  ])
  const told = events.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line).detail)
  expect(told.map(({ number, object }) => [number, object])).toEqual([
    [1, 'namespace'],
    [2, 'tap'],
  ])
})
