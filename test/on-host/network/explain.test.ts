import { ipBatch } from '@berth/agent/network/namespace.ts'
import type { Peer } from '@berth/agent/network/testing/peer.ts'
import type { PolicyGroup, Traffic } from '@berth/contract/networks/policy.ts'
import { checkTraffic, type End } from '@berth/server/domain/networks/explained-path.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Guest, group, NetworkHost, open, out, rule } from './network-host.ts'
import { world } from './world.ts'

/** The host's end of the first uplink: a live address that instances must not reach. */
const uplink = '100.64.0.2'

/** An address of the link between host and router that nobody may be asked for from inside a VPC. */
const linkLocal = '169.254.7.7'

/** Ports that everybody listens at; rules begin and end at them. */
const ports = [79, 80, 443, 8080]

const groups: PolicyGroup[] = [
  group('sg-web', rule('egress', 'any', null), rule('ingress', 'tcp', 80), rule('ingress', 'tcp', 443)),
  group(
    'sg-db',
    rule('ingress', 'tcp', [80, 442], { security_group: 'sg-web' }),
    rule('ingress', 'udp', null, { cidr: '10.0.2.0/24' }),
    rule('ingress', 'icmp', null, { security_group: 'sg-db' }),
  ),
  group('sg-ping', rule('ingress', 'icmp', null), rule('egress', 'icmp', null)),
  group(
    'sg-narrow',
    rule('egress', 'tcp', 443, { cidr: '203.0.113.0/24' }),
    rule('egress', 'udp', [80, 8080], { security_group: 'sg-db' }),
    rule('egress', 'tcp', null, { cidr: '198.51.100.0/25' }),
    rule('ingress', 'tcp', 8080, { cidr: '100.64.0.0/10' }),
    rule('ingress', 'udp', 79, { cidr: '198.51.100.101/32' }),
  ),
]

const known = new Map([open, out, ...groups].map((each) => [each.id, each]))

const kinds: Traffic[] = [
  ...ports.map((port): Traffic => ({ protocol: 'tcp', port })),
  ...ports.map((port): Traffic => ({ protocol: 'udp', port })),
  { protocol: 'icmp', port: null },
]

interface Question {
  name: string
  peer: Peer
  from: End
  to: End
  traffic: Traffic
}

/** Questions asked at once; few enough that none is late for want of a processor. */
const questionsAtOnce = 16

describe('what is explained about traffic', () => {
  let net: NetworkHost
  const guests = new Map<string, Guest>()

  beforeAll(async () => {
    net = await NetworkHost.open({ announce: true })
    await ipBatch('internet', [`addr add ${linkLocal}/32 dev lo`])
    await net.setGroups(...groups)
    const [a, b] = [net.vpc('vpc-a'), net.vpc('vpc-b')]
    const add = async (name: string, vpcId: string, address: string, security_groups: string[], public_ip = '') => {
      guests.set(name, await net.guest(vpcId, address, { security_groups, public_ip }))
    }
    await add('web', a, '10.0.1.5', ['sg-web'], '198.51.100.101')
    await add('db', a, '10.0.1.6', ['sg-db'])
    await add('both', a, '10.0.2.7', ['sg-db', 'sg-ping', 'sg-out'], '198.51.100.102')
    await add('narrow', a, '10.0.2.8', ['sg-narrow'], '198.51.100.103')
    await add('bare', a, '10.0.2.9', [], '198.51.100.104')
    // another VPC with the same network, one address twice
    await add('far', b, '10.0.1.5', ['sg-web', 'sg-narrow'], '198.51.100.105')
    await add('plain', b, '10.0.2.6', ['sg-out'])
    for (const peer of [...guests.values(), net.internet, net.host]) {
      await peer.listen('tcp', ...ports)
      await peer.listen('udp', ...ports)
    }
  })

  afterAll(() => net.close())

  function end(guest: Guest, address: string): End {
    const { nic, vpcId } = guest
    return {
      address,
      instance: {
        id: nic.hostname,
        vpc: { id: vpcId, cidr: '10.0.0.0/16', gateways: ['10.0.1.1', '10.0.2.1'] },
        privateAddress: nic.ip,
        publicAddress: nic.public_ip,
        groups: nic.security_groups.flatMap((id) => known.get(id) ?? []),
      },
    }
  }

  /** Who talks to whom: within a VPC by private addresses, to another by public ones, to and from the world by these. */
  function questions(): Question[] {
    const pairs: Omit<Question, 'traffic'>[] = []
    for (const [fromName, sender] of guests) {
      const from = end(sender, sender.nic.ip)
      for (const [toName, receiver] of guests) {
        if (receiver === sender) continue
        const sameVpc = receiver.vpcId === sender.vpcId
        const address = sameVpc ? receiver.nic.ip : receiver.nic.public_ip
        if (address === '') continue // there is nothing that the sender could write into its packets
        pairs.push({ name: `${fromName} to ${toName}`, peer: sender, from, to: end(receiver, address) })
      }
      for (const address of [
        world.router,
        world.beyond,
        '10.0.1.99',
        '10.0.1.1',
        '169.254.169.254',
        uplink,
        linkLocal,
      ]) {
        pairs.push({ name: `${fromName} to ${address}`, peer: sender, from, to: { instance: null, address } })
      }
    }
    for (const [toName, receiver] of guests) {
      if (receiver.nic.public_ip === '') continue
      const from: End = { instance: null, address: world.router }
      pairs.push({
        name: `the world to ${toName}`,
        peer: net.internet,
        from,
        to: end(receiver, receiver.nic.public_ip),
      })
    }
    return pairs.flatMap((pair) => kinds.map((traffic) => ({ ...pair, traffic })))
  }

  /** Whether a real packet is answered. Who is expected to be heard is waited for longer. */
  async function arrives({ peer, to, traffic }: Question, expected: boolean): Promise<boolean> {
    const { protocol, port } = traffic
    if (protocol === 'icmp' || port === null) {
      return expected ? peer.pings(to.address) : !(await peer.pingFails(to.address))
    }
    const flow = await peer.open(protocol, to.address, port, { expect: expected ? 'answer' : 'nothing' })
    await flow.close()
    // a service that nobody has opened refuses, which only who was reached can do
    return flow.heard !== undefined || flow.error === 'ECONNREFUSED'
  }

  test('is what becomes of real packets', async () => {
    const all = questions()
    const wrong: string[] = []
    let allowed = 0
    const ask = async (question: Question) => {
      const checks = checkTraffic(question.from, question.to, question.traffic)
      const expected = checks.at(-1)?.passes === true
      if (expected) allowed++
      if ((await arrives(question, expected)) !== expected) {
        const { protocol, port } = question.traffic
        const why = checks.map(({ message }) => message).join(' ')
        wrong.push(`${question.name} ${protocol}/${port}: explained as ${expected}, but is not. ${why}`)
      }
    }
    for (let at = 0; at < all.length; at += questionsAtOnce) {
      await Promise.all(all.slice(at, at + questionsAtOnce).map(ask))
    }
    expect(wrong).toEqual([])
    // or the grid has lost its sense
    expect(all.length).toBeGreaterThan(500)
    expect(allowed).toBeGreaterThan(80)
    expect(all.length - allowed).toBeGreaterThan(80)
  })
})
