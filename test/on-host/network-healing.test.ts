import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import type { Nic } from '@berth/agent/network/nic.ts'
import { VpcNetworks } from '@berth/agent/network/vpc-networks.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { testNic } from '@berth/agent/testing/nic.ts'
import type { DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import { hostTableName, uplinkName } from '@berth/contract/hosts/names.ts'
import type { PolicyGroup } from '@berth/contract/networks/policy.ts'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { noMetadata } from './network/network-host.ts'

const installation = 'hea1ng'
const vpcId = 'vpc-healed'
const network: DesiredNetwork = {
  vpc_id: vpcId,
  cidr: '10.0.0.0/16',
  subnets: [{ id: 'subnet-a', cidr: '10.0.1.0/24', gateway: '10.0.1.1' }],
}
const anywhere = { cidr: '0.0.0.0/0' }
const web: PolicyGroup = {
  id: 'sg-web',
  rules: [
    { direction: 'ingress', protocol: 'icmp', ports: null, remote: anywhere },
    { direction: 'egress', protocol: 'any', ports: null, remote: anywhere },
  ],
}

const run = async (line: string, input?: string) =>
  (await runCommand(line.split(' '), input === undefined ? {} : { input })).stdout

describe('a network that somebody changed by hand', () => {
  const nics: readonly Nic[] = [testNic(1, { public_ip: '203.0.113.7' }), testNic(2, { bandwidth_mbps: 0 })]
  const [first, second] = nics as [Nic, Nic]
  const taps = new Set(nics.map(({ tap }) => tap))
  const uplink = uplinkName(installation, vpcId)
  const path = process.env.PATH ?? ''
  let programs: string
  let runtimeDirectory: string
  let networks: VpcNetworks
  let namespace: string

  beforeAll(async () => {
    runtimeDirectory = await mkdtemp('/run/berth/healing-')
    await run(`chmod 755 ${runtimeDirectory}`)
    programs = await mkdtemp(join(tmpdir(), 'berth-programs-'))
    await writeFile(join(programs, 'arping'), '#!/bin/sh\n', { mode: 0o755 }) // nobody is there to be told
    process.env.PATH = `${programs}${delimiter}${path}`
    await run('ip link add ext0 type veth peer name ext1')
    await run('ip link set ext0 up')
    await run('ip link set ext1 up')
    const log = pino({ level: process.env.BERTH_TEST_LOG ?? 'silent' })
    networks = new VpcNetworks({ installation, runtimeDirectory, announceOn: 'ext0', metadata: noMetadata, log })
    await networks.apply({ instances: [], networks: [network], security_groups: [web] })
    for (const nic of nics) namespace = await networks.attach(network, nic, { signal: AbortSignal.timeout(20_000) })
  })

  afterAll(async () => {
    for (const { tap } of nics) await networks.detach(vpcId, tap, { signal: AbortSignal.timeout(20_000) })
    await run('ip link del ext0')
    await run('ip netns del elsewhere')
    process.env.PATH = path
    for (const directory of [programs, runtimeDirectory]) await rm(directory, { recursive: true })
  })

  const inside = (line: string, input?: string) => run(`nsenter --net=/run/netns/${namespace} -- ${line}`, input)
  const heal = () => networks.heal(taps, { signal: AbortSignal.timeout(20_000) })
  const repairs = async () => (await heal()).repairs.map(({ object }) => object)
  const dnsmasqPid = async () => (await readFile(join(runtimeDirectory, namespace, 'dnsmasq.pid'), 'utf8')).trim()

  /** Everything there is, without what counts or numbers. */
  async function everything(): Promise<string[]> {
    const texts = await Promise.all([
      inside('ip addr show'),
      inside('ip route show'),
      inside('ip neigh show nud permanent'),
      inside('tc qdisc show'),
      inside('nft -s list ruleset'),
      run('ip addr show'),
      run('ip route show'),
      run('ip neigh show proxy'),
      run('nft -s list ruleset'),
    ])
    const lines = texts.flatMap((text) => text.split('\n'))
    return lines
      .map((line) =>
        line
          .replaceAll(/^\d+: |link-netns \S+|link-netnsid \d+|qdisc (\w+) \w+:|@if\d+|if\d+/g, '')
          .replaceAll(/(vu\S+|up0).*link\/ether.*/g, '$1')
          .replaceAll(/link\/ether \S+ brd \S+/g, '')
          .replaceAll(/NO-CARRIER,| state (?:UP|DOWN)/g, '') // the kernel notes both a moment later
          .replaceAll(/100\.64\.0\.\d+/g, 'PAIR')
          .trim(),
      )
      .filter((line) => !line.includes('inet6') && line !== '' && !line.startsWith('valid_lft'))
      .sort()
  }

  test('is left alone when nothing is wrong', async () => {
    const rules = await inside('nft -a list ruleset') // handles rise when it is loaded again
    expect(await heal()).toEqual({ repairs: [], unattached: [first.tap, second.tap] }) // nobody has these taps open
    expect(await inside('nft -a list ruleset')).toBe(rules)
  })

  test.each<[what: string, objects: string[], change: () => Promise<unknown>]>([
    ['a tap', ['tap'], () => inside(`ip link del ${first.tap}`)],
    ['the route to a guest', ['route'], () => inside(`ip route del ${first.ip}`)],
    ['the MTU of a tap', ['tap'], () => inside(`ip link set ${first.tap} mtu 1400`)],
    ['a tap that is down', ['tap'], () => inside(`ip link set ${first.tap} down`)],
    ['the gateway on a tap', ['tap', 'route', 'neighbour'], () => inside(`ip addr del 10.0.1.1/32 dev ${second.tap}`)],
    [
      'the MAC of the gateway',
      ['tap', 'neighbour'],
      () => inside(`ip link set ${first.tap} address 02:00:00:00:00:09`),
    ],
    ['a neighbour', ['neighbour'], () => inside(`ip neigh del ${second.ip} dev ${second.tap}`)],
    ['a bandwidth', ['shaping'], () => inside(`tc qdisc del dev ${first.tap} root`)],
    [
      'a bandwidth where none was',
      ['shaping'],
      () => inside(`tc qdisc replace dev ${second.tap} root tbf rate 1mbit burst 10k latency 5ms`),
    ],
    ['proxy ARP of a tap', ['setting'], () => inside(`sysctl -qw net.ipv4.conf.${first.tap}.proxy_arp=0`)],
    ['its delay', ['setting'], () => inside(`sysctl -qw net.ipv4.neigh.${first.tap}.proxy_delay=80`)],
    // the kernel takes redirects where it does not forward
    ['forwarding', ['setting', 'setting'], () => inside('sysctl -qw net.ipv4.ip_forward=0')],
    ['the default route', ['route'], () => inside('ip route del default')],
    ['the unreachable route', ['route'], () => inside('ip route del unreachable 10.0.0.0/16')],
    ['the inner end of the uplink', ['uplink', 'route'], () => inside('ip link set up0 down')],
    ['the whole uplink', ['uplink'], () => run(`ip link del ${uplink}`)],
    ['the inner end, moved away', ['uplink', 'route'], () => moveAway()],
    ['a rule', ['ruleset'], () => inside('nft flush chain inet vpc fwd_in')],
    ['a rule of its own', ['ruleset'], () => inside('nft insert rule inet vpc fwd_out accept')],
    ['a set element', ['ruleset'], () => inside(`nft delete element inet vpc vm_in { "${first.tap}" }`)],
    [
      'a set element of its own',
      ['ruleset'],
      () => inside('nft add element inet vpc bindmac { "vtx" . 06:00:00:00:00:99 }'),
    ],
    ['the policy of a chain', ['ruleset'], () => inside('nft -f -', 'chain inet vpc antispoof { policy accept; }\n')],
    [
      'a chain of its own',
      ['ruleset'],
      () => inside('nft -f -', 'add chain inet vpc mine { type filter hook forward priority -200; policy drop; }\n'),
    ],
    ['all rules', ['ruleset'], () => inside('nft flush ruleset')],
    ['dnsmasq', ['dnsmasq'], async () => run(`kill -9 ${await dnsmasqPid()}`)],
    ['the file of a guest', ['dnsmasq'], () => rm(join(runtimeDirectory, namespace, 'hosts.d', first.tap))],
    ["the host's forwarding", ['host_setting'], () => run('sysctl -qw net.ipv4.ip_forward=0')],
    ["the host's table", ['host_ruleset'], () => run(`nft delete table inet ${hostTableName(installation)}`)],
    [
      "an element of the host's table",
      ['host_ruleset'],
      () => run(`nft delete element inet ${hostTableName(installation)} uplinks { "${uplink}" }`),
    ],
    ["the host's route to a public address", ['host_route'], () => run('ip route del 203.0.113.7')],
    [
      "the host's answer for a public address",
      ['host_neighbour'],
      () => run('ip neigh del proxy 203.0.113.7 dev ext0'),
    ],
    ["the namespace's name", ['namespace'], () => run(`ip netns del ${namespace}`)],
  ])('gets back %s', async (_what, objects, change) => {
    const before = await everything()
    await change()
    expect(await repairs()).toEqual(objects)
    expect(await everything()).toEqual(before)
    expect(await repairs()).toEqual([])
  })

  async function moveAway(): Promise<void> {
    await run('ip netns add elsewhere')
    await inside('ip link set up0 netns elsewhere')
  }
})
