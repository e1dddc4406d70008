import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ImageStore } from '@berth/agent/image/store.ts'
import { QemuHost } from '@berth/agent/qemu/host.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { desiredInstance } from '@berth/agent/testing/desired-instance.ts'
import type { DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import { hostTableName } from '@berth/contract/hosts/names.ts'
import { pino } from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'

const installation = '0rphan'
const vpcId = 'vpc-orphaned'
const instance = desiredInstance({ vpc_id: vpcId, subnet_id: 'subnet-a', private_ip: '10.0.1.5' })
const network: DesiredNetwork = {
  vpc_id: vpcId,
  cidr: '10.0.0.0/16',
  subnets: [{ id: 'subnet-a', cidr: '10.0.1.0/24', gateway: '10.0.1.1' }],
}
const known = () => ({ instances: new Set<string>([instance.id]), vpcs: new Set<string>([vpcId]) })
const nothing = () => ({ instances: new Set<string>(), vpcs: new Set<string>() })
const signal = () => AbortSignal.timeout(30_000)
const run = (line: string, input?: string) => runCommand(line.split(' '), input === undefined ? {} : { input })

const runtimeDirectory = `/run/berth/${installation}`
let data: string
let host: QemuHost
let namespace: string

beforeAll(async () => {
  data = await mkdtemp(join(tmpdir(), 'berth-orphans-'))
  const images = join(data, 'images')
  await mkdir(images)
  const log = pino({ level: process.env.BERTH_TEST_LOG ?? 'silent' })
  host = await QemuHost.open({
    installation,
    dataDirectory: join(data, 'agent'),
    runtimeDirectory,
    guestDirectory: join(import.meta.dirname, '../../agent/guest'),
    imagesDirectory: images,
    images: new ImageStore({ directory: images, log, clock: { now: Date.now }, allowPrivateSources: false }),
    log,
  })
  host.applyNetworks({ networks: [network], security_groups: [], instances: [] })
  ;({ netns: namespace } = await host.ensureNetwork(instance, network, 0, { signal: signal() }))
})

afterAll(async () => {
  await host.remove(instance.id, vpcId, { signal: signal() })
  expect(await find(nothing)).toEqual([])
  await host.close()
  for (const directory of [data, runtimeDirectory]) await rm(directory, { recursive: true })
})

const inside = (line: string, input?: string) => run(`nsenter --net=/run/netns/${namespace} -- ${line}`, input)
const find = async (knowledge = known) =>
  (await host.findOrphans(knowledge, { signal: signal() })).map(({ kind, name }) => `${kind} ${name}`)

test('what an instance that is known has is explained; the same of one that is not is found', async () => {
  expect(await find()).toEqual([])
  const found = await find(nothing)
  expect(found.map((line) => line.split(' ')[0]).sort()).toEqual(['link', 'namespace', 'process', 'runtime_file'])
})

type Undo = () => Promise<unknown>

test.each<[found: string | RegExp, plant: () => Promise<Undo>]>([
  [
    `namespace berth-${installation}-lost`,
    async () => {
      await run(`ip netns add berth-${installation}-lost`)
      return () => run(`ip netns del berth-${installation}-lost`)
    },
  ],
  [
    'link vtlost',
    async () => {
      await inside('ip tuntap add dev vtlost mode tap')
      return () => inside('ip link del vtlost')
    },
  ],
  [
    'link vulost',
    async () => {
      await run('ip link add vulost type veth peer name vulost1')
      await run(`ip link set vulost alias berth-${installation}`)
      return () => run('ip link del vulost')
    },
  ],
  [
    'route 10.0.1.9 dev lo',
    async () => {
      await inside('ip route add 10.0.1.9/32 dev lo')
      return () => inside('ip route del 10.0.1.9/32 dev lo')
    },
  ],
  [
    'neighbour 10.0.1.9 dev up0',
    async () => {
      await inside('ip neigh add 10.0.1.9 lladdr 06:00:00:00:00:09 dev up0 nud permanent')
      return () => inside('ip neigh del 10.0.1.9 dev up0')
    },
  ],
  [
    'nft_table ip lost',
    async () => {
      await inside('nft add table ip lost')
      return () => inside('nft delete table ip lost')
    },
  ],
  [
    'nft_object chain inet vpc in_vtlost',
    async () => {
      await inside('nft add chain inet vpc in_vtlost')
      return () => inside('nft delete chain inet vpc in_vtlost')
    },
  ],
  [
    'nft_object element inet vpc bindmac {"concat":["vtlost","06:00:00:00:00:09"]}',
    async () => {
      await inside('nft add element inet vpc bindmac { "vtlost" . 06:00:00:00:00:09 }')
      return () => inside('nft delete element inet vpc bindmac { "vtlost" . 06:00:00:00:00:09 }')
    },
  ],
  [
    `nft_object element inet ${hostTableName(installation)} uplinks "vulost"`,
    async () => {
      await run(`nft add element inet ${hostTableName(installation)} uplinks { "vulost" }`)
      return () => run(`nft delete element inet ${hostTableName(installation)} uplinks { "vulost" }`)
    },
  ],
  [
    'connection 10.0.1.9 192.0.2.1',
    async () => {
      const flow = '-p udp --src 10.0.1.9 --dst 192.0.2.1 --sport 7 --dport 7'
      await inside(`conntrack -I ${flow} --timeout 60`)
      return () => inside(`conntrack -D ${flow}`)
    },
  ],
  [
    /^process dnsmasq \d+$/,
    async () => {
      const file = `--conf-file=${runtimeDirectory}/lost/dnsmasq.conf`
      // its name and arguments are all that is looked at
      const lasting = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)', '--', file], { argv0: 'dnsmasq' })
      await new Promise((resolve) => lasting.once('spawn', resolve))
      return async () => lasting.kill('SIGKILL')
    },
  ],
  [
    'runtime_file inst-lost',
    async () => {
      await mkdir(join(runtimeDirectory, 'inst-lost'))
      return () => rm(join(runtimeDirectory, 'inst-lost'), { recursive: true })
    },
  ],
  [
    'instance_directory inst-lost',
    async () => {
      const directory = join(data, 'agent/instances/inst-lost')
      await mkdir(directory)
      return () => rm(directory, { recursive: true })
    },
  ],
  [
    'image_partial lost.qcow2.partial',
    async () => {
      const file = join(data, 'images/lost.qcow2.partial')
      await writeFile(file, 'begun')
      await utimes(file, new Date(), new Date(Date.now() - 25 * 60 * 60_000))
      return () => rm(file)
    },
  ],
])('finds %s', async (found, plant) => {
  const undo = await plant()
  try {
    expect(await find()).toEqual([typeof found === 'string' ? found : expect.stringMatching(found)])
  } finally {
    await undo()
  }
})

test('a table that has outlived the last uplink is found', async () => {
  const empty = await QemuHost.open({
    installation: 'n0thng',
    dataDirectory: join(data, 'empty'),
    runtimeDirectory: '/run/berth/n0thng',
    guestDirectory: join(import.meta.dirname, '../../agent/guest'),
    imagesDirectory: join(data, 'images'),
    images: new ImageStore({
      directory: join(data, 'images'),
      log: pino({ level: 'silent' }),
      clock: { now: Date.now },
      allowPrivateSources: false,
    }),
    log: pino({ level: 'silent' }),
  })
  await run(`nft add table inet ${hostTableName('n0thng')}`)
  expect(await empty.findOrphans(nothing, { signal: signal() })).toMatchObject([
    { kind: 'nft_table', name: `table inet ${hostTableName('n0thng')}` },
  ])
  await run(`nft delete table inet ${hostTableName('n0thng')}`)
  await empty.close()
})
