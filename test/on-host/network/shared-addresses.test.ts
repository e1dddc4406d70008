import { mkdir, rm } from 'node:fs/promises'
import { VpcNetworks } from '@berth/agent/network/vpc-networks.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { testNic } from '@berth/agent/testing/nic.ts'
import { tapName } from '@berth/contract/hosts/names.ts'
import { pino } from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { noMetadata, open } from './network-host.ts'
import { closeWorld, openWorld, worldInterface } from './world.ts'

/** Addresses of the network between the host and the router. */
const [shared, own, third] = ['198.51.100.101', '198.51.100.102', '198.51.100.103']

const signal = AbortSignal.timeout(600_000)
const network = {
  vpc_id: 'vpc-a',
  cidr: '10.0.0.0/16',
  subnets: [{ id: 'subnet-0', cidr: '10.0.1.0/24', gateway: '10.0.1.1' }],
}

/** Another installation on the same machine, with one card. */
class Installation {
  readonly id: string
  readonly nic: ReturnType<typeof testNic>
  readonly networks: VpcNetworks
  readonly said: string[] = []
  readonly directory: string

  constructor(id: string) {
    this.id = id
    this.directory = `/run/berth/${id}`
    const log = pino({ level: 'info' }, { write: (line) => this.said.push(JSON.parse(line).msg) })
    const options = { installation: id, runtimeDirectory: this.directory, announceOn: worldInterface, log }
    this.networks = new VpcNetworks({ ...options, metadata: noMetadata })
    this.nic = testNic(1, {
      tap: tapName(id, 'inst-1'),
      ...{ ip: '10.0.1.5', gateway: '10.0.1.1', security_groups: ['sg-open'], bandwidth_mbps: 0 },
    })
  }

  async attach(address: string): Promise<void> {
    await mkdir(this.directory, { recursive: true, mode: 0o711 })
    await this.networks.apply({ networks: [network], security_groups: [open], instances: [] })
    await this.networks.attach(network, { ...this.nic, public_ip: address }, { signal })
  }

  /** What a look puts right. */
  async look(): Promise<string[]> {
    const { repairs } = await this.networks.heal(new Set([this.nic.tap]), { signal })
    return repairs.map(({ object, detail }) => `${object}: ${detail}`)
  }

  fault(address: string) {
    return this.networks.networkFault('vpc-a', { ...this.nic, public_ip: address })
  }

  async close(): Promise<void> {
    await this.networks.detach('vpc-a', this.nic.tap, { signal })
    await rm(this.directory, { recursive: true, force: true })
  }
}

const ip = async (...args: string[]) => (await runCommand(['ip', ...args])).stdout.trim()
const routeTo = (address: string) => ip('-4', 'route', 'show', 'exact', `${address}/32`)

/** Whose the device is that an address leads to. */
async function holder(address: string): Promise<string> {
  const [, device = ''] = /dev (\S+)/.exec(await routeTo(address)) ?? []
  return (await ip('link', 'show', device)).replace(/^[\s\S]*alias /, '')
}

/** Whether the host answers for an address. */
async function isAnswered(address: string): Promise<boolean> {
  return (await ip('neigh', 'show', 'proxy', 'dev', worldInterface))
    .split('\n')
    .some((line) => line.startsWith(address))
}

const first = new Installation('first0')
const second = new Installation('second')
let world: Awaited<ReturnType<typeof openWorld>>

beforeAll(async () => {
  world = await openWorld()
})
afterAll(async () => {
  await first.close()
  await second.close()
  await closeWorld(world)
})

/** Look at both three times: neither finds anything to put right. */
async function expectRest(): Promise<void> {
  for (let look = 0; look < 3; look++) expect([await first.look(), await second.look()]).toEqual([[], []])
}

test('an address stays with the installation that has it; the other says so, and both are at rest', async () => {
  await first.attach(shared)
  await second.attach(shared)
  await expectRest()
  expect(await holder(shared)).toBe('berth-first0')
  expect(first.fault(shared)).toBe(null)
  expect(second.fault(shared)).toEqual({
    reason: 'public_address_taken',
    message: expect.stringMatching(
      /^198\.51\.100\.101 is led elsewhere on this host, by installation first0 \(vu\w+\)$/,
    ),
  })
  expect(first.said).toEqual([])
  expect(second.said).toHaveLength(1) // not once a look
  const { stdout } = await runCommand(['nft', 'list', 'set', 'inet', 'berth_second', 'public_addresses'])
  expect(stdout).not.toContain(shared) // its guest sends nothing under it
})

test('an agent that starts anew on a host whose address another has keeps off it, too', async () => {
  const restarted = new Installation('second')
  restarted.networks.restore('vpc-a', { ...restarted.nic, public_ip: shared })
  await restarted.networks.apply({ networks: [network], security_groups: [open], instances: [] })
  expect(await restarted.look()).toEqual([])
  expect(restarted.fault(shared)?.reason).toBe('public_address_taken')
  expect(await holder(shared)).toBe('berth-first0')
})

test('who leaves an address that another has leaves that one what it has', async () => {
  await second.attach(own)
  expect(second.fault(own)).toBe(null)
  expect(await holder(own)).toBe('berth-second')
  expect([await holder(shared), await isAnswered(shared)]).toEqual(['berth-first0', true])
  await second.attach(shared)
  await second.networks.detach('vpc-a', second.nic.tap, { signal })
  expect([await holder(shared), await isAnswered(shared), await isAnswered(own)]).toEqual(['berth-first0', true, false])
  await second.attach(shared)
  await expectRest()
})

test('the next look has an address that the other let go of, and that is no repair', async () => {
  await first.attach('')
  const before = second.said.length
  expect(await second.look()).toEqual([])
  expect([await holder(shared), await isAnswered(shared)]).toEqual(['berth-second', true])
  expect(second.fault(shared)).toBe(null)
  expect(second.said.length).toBe(before + 1)
  const { stdout } = await runCommand(['nft', 'list', 'set', 'inet', 'berth_second', 'public_addresses'])
  expect(stdout).toContain(shared)
  await expectRest()
})

test.each([
  ['blackhole', ['blackhole']],
  ['by another link, of a network configuration', ['dev', worldInterface, 'proto', 'static']],
])('a route that somebody made by hand is kept off as well (%s)', async (_, [kind = '', ...rest]) => {
  const argv = kind === 'blackhole' ? ['blackhole', third] : [third, kind, ...rest]
  await ip('route', 'add', ...argv)
  await first.attach(third)
  await expectRest()
  expect(first.fault(third)?.message).toMatch(/by a route of its own/)
  expect(await routeTo(third)).not.toContain('100.64')
  await ip('route', 'del', ...argv)
  expect(await first.look()).toEqual([])
  expect(await holder(third)).toBe('berth-first0')
  expect(first.fault(third)).toBe(null)
  await first.attach('')
})

test('a route of its own that was removed is still a repair', async () => {
  await ip('route', 'del', shared)
  expect(await second.look()).toEqual([`host_route: ${shared} is missing, one of 1`])
  await ip('neigh', 'del', 'proxy', shared, 'dev', worldInterface)
  expect(await second.look()).toEqual([`host_neighbour: ${shared} is missing, one of 1`])
  await expectRest()
})
