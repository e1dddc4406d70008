import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { inNamespace } from '@berth/agent/network/namespace.ts'
import type { Nic } from '@berth/agent/network/nic.ts'
import { VpcNetworks } from '@berth/agent/network/vpc-networks.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { testNic } from '@berth/agent/testing/nic.ts'
import type { DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import type { PolicyGroup, PolicyRule } from '@berth/contract/networks/policy.ts'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { noMetadata } from './network/network-host.ts'

const vpcId = 'vpc-changing'
const network: DesiredNetwork = {
  vpc_id: vpcId,
  cidr: '10.0.0.0/16',
  subnets: [{ id: 'subnet-a', cidr: '10.0.1.0/24', gateway: '10.0.1.1' }],
}
const rule = (direction: PolicyRule['direction'], protocol: PolicyRule['protocol'], port: number): PolicyRule => ({
  direction,
  protocol,
  ports: { from: port, to: port },
  remote: { cidr: '0.0.0.0/0' },
})
const needed = [rule('ingress', 'udp', 7000), rule('egress', 'udp', 7000)]
const groupWith = (more: PolicyRule[]): PolicyGroup => ({ id: 'sg-web', rules: [...more, ...needed] })

const changes = 100
const run = (line: string, input?: string) => runCommand(line.split(' '), input === undefined ? {} : { input })
const ip = (namespace: string, lines: string[]) => run(`ip -netns ${namespace} -batch -`, `${lines.join('\n')}\n`)
const signal = () => AbortSignal.timeout(30_000)

/** A namespace that stands for a guest: its card is the other end of a veth in place of the tap. */
async function plugIn(namespace: string, nic: Nic, guest: string): Promise<void> {
  await run(`ip netns add ${guest}`)
  await ip(namespace, [`link del ${nic.tap}`, `link add ${nic.tap} type veth peer name eth0 netns ${guest}`])
  await ip(guest, [
    `link set eth0 address ${nic.mac} mtu 1450 up`,
    `addr add ${nic.ip}/24 dev eth0`,
    `route add default via ${nic.gateway}`,
  ])
}

function peer(guest: string, ...args: string[]): ChildProcess & { stdin: NonNullable<ChildProcess['stdin']> } {
  const program = join(import.meta.dirname, 'udp-peer-process.ts')
  const [command = '', ...argv] = [...inNamespace(guest), process.execPath, program, ...args]
  return spawn(command, argv, { stdio: ['pipe', 'pipe', 'inherit'] })
}

test(`no packet is lost while the rules change ${changes} times`, async () => {
  const runtimeDirectory = await mkdtemp('/run/berth/changing-')
  await run(`chmod 755 ${runtimeDirectory}`)
  const log = pino({ level: process.env.BERTH_TEST_LOG ?? 'silent' })
  const networks = new VpcNetworks({
    installation: 'change',
    runtimeDirectory,
    announceOn: null,
    metadata: noMetadata,
    log,
  })
  const nics = [testNic(1, { bandwidth_mbps: 0 }), testNic(2, { bandwidth_mbps: 0 })] as const
  const taps = new Set(nics.map(({ tap }) => tap))
  await networks.apply({ instances: [], networks: [network], security_groups: [groupWith([])] })
  for (const nic of nics) await networks.attach(network, nic, { signal: signal() })
  const namespace = networks.namespaceOf(vpcId)
  for (const [i, nic] of nics.entries()) await plugIn(namespace, nic, `guest-${i}`)
  await networks.heal(taps, { signal: signal() }) // gives the veths what the taps had

  const echo = peer('guest-1', 'echo', '7000')
  const sender = peer('guest-0', 'send', nics[1].ip, '7000')
  try {
    if (echo.stdout === null || sender.stdout === null) throw new Error('they have no output')
    await once(echo.stdout, 'data')
    await once(sender.stdout, 'data') // the first answer: the way is there
    const said = text(sender.stdout)
    for (let change = 1; change <= changes; change++) {
      // other rules in front of those that the packets pass by, and the whole ruleset loaded for them
      await networks.apply({
        instances: [],
        networks: [network],
        security_groups: [groupWith([rule('ingress', 'tcp', change)])],
      })
      expect(await networks.heal(taps, { signal: signal() })).toMatchObject({ repairs: [] }) // in its turn behind the change
    }
    const { stdout: rules } = await run(`nsenter --net=/run/netns/${namespace} -- nft list ruleset`)
    expect(rules).toContain(`tcp dport ${changes} accept`)
    sender.stdin.end()
    const { sent, answered } = JSON.parse(await said)
    console.log(`${sent} datagrams sent during ${changes} changes, ${answered} answered`)
    expect(sent).toBeGreaterThan(10 * changes)
    expect(answered).toBe(sent)
  } finally {
    for (const process of [sender, echo]) process.kill('SIGKILL')
    for (const { tap } of nics) await networks.detach(vpcId, tap, { signal: signal() })
    for (const guest of ['guest-0', 'guest-1']) await run(`ip netns del ${guest}`)
    await rm(runtimeDirectory, { recursive: true })
  }
})
