import { uplinkInside } from '@berth/agent/network/names.ts'
import { inNamespace } from '@berth/agent/network/namespace.ts'
import { Peer } from '@berth/agent/network/testing/peer.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dnsQuestion } from './dns.ts'
import { type Guest, group, NetworkHost, rule } from './network-host.ts'
import { world } from './world.ts'

const members = group('sg-members', rule('ingress', 'any', null, { security_group: 'sg-members' }))

describe("a process in a VPC's namespace", () => {
  let net: NetworkHost
  let guarded: Guest
  let open: Guest
  let elsewhere: Guest
  const peers: Peer[] = []

  beforeAll(async () => {
    net = await NetworkHost.open({ announce: true })
    const vpc = net.vpc('vpc-a')
    await net.setGroups(members)
    guarded = await net.guest(vpc, '10.0.1.5', { security_groups: ['sg-members'] })
    open = await net.guest(vpc, '10.0.1.6')
    elsewhere = await net.guest(net.vpc('vpc-b'), '10.0.1.7', { public_ip: '198.51.100.101' })
    for (const peer of [guarded, open, elsewhere, net.host, net.internet]) {
      await peer.listen('tcp', 22)
      await peer.listen('udp', 22)
    }
  })

  afterAll(async () => {
    for (const peer of peers) await peer.end()
    await net.close()
  })

  /** In the namespace of vpc-a, as a user. */
  function peerOf(uid: number): Peer {
    const peer = new Peer(net.networks.namespaceOf('vpc-a'), undefined, uid)
    peers.push(peer)
    return peer
  }

  /** What it hears at port 22 of everybody, and of the services of the namespace: only what answers. */
  async function answers(peer: Peer): Promise<string[]> {
    const { stdout } = await runCommand([
      ...inNamespace(net.networks.namespaceOf('vpc-a')),
      ...['ip', 'route', 'get', world.beyond],
    ])
    const outside = /via (\S+)/.exec(stdout)?.[1] ?? `no route over ${uplinkInside}`
    const addresses = {
      guarded: guarded.nic.ip,
      open: open.nic.ip,
      'other VPC': elsewhere.nic.public_ip,
      host: world.host,
      uplink: outside,
      world: world.beyond,
    }
    const heard: string[] = []
    for (const [name, address] of Object.entries(addresses)) {
      for (const protocol of ['tcp', 'udp'] as const) {
        const came = await peer.fails(protocol, address, 22)
        if (came.startsWith('answered')) heard.push(`${protocol} ${name}`)
        else expect(came).toMatch(/^(?:timeout|EPERM)$/)
      }
    }
    for (const [name, address] of [
      ['gateway', open.nic.gateway],
      ['itself', '127.0.0.1'],
    ] as const) {
      const answer = await peer.query('udp', address, 53, dnsQuestion('guest-1', 'A'), { expect: 'nothing' })
      if (answer !== null) heard.push(`name server at ${name}`)
    }
    return heard
  }

  test('that is a VMM reaches nobody, whatever the groups say', async () => {
    expect(await answers(peerOf(guarded.nic.uid))).toEqual([])
  })

  test('that is of any other user reaches nobody', async () => {
    expect(await answers(peerOf(1000))).toEqual([])
  })

  test('that is the name server reaches no guest and nothing in the world but name servers', async () => {
    const peer = peerOf(65_534)
    expect(await answers(peer)).toEqual([])
    await net.internet.listen('udp', 53)
    expect(await peer.reaches('udp', world.beyond, 53)).toMatch(/^198\.51\.100\./)
  })

  test('that is root reaches the guests, as `berth ssh` does', async () => {
    const heard = await answers(peerOf(0))
    expect(heard).toEqual(expect.arrayContaining(['tcp guarded', 'udp guarded', 'tcp open', 'name server at gateway']))
  })
})
