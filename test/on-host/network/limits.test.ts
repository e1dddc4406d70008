import { inNamespace, ipBatch } from '@berth/agent/network/namespace.ts'
import { mostConnections } from '@berth/agent/network/ruleset/ruleset.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Guest, NetworkHost } from './network-host.ts'
import { world } from './world.ts'

const publicAddress = '198.51.100.101'

/** IPv4 and UDP headers. */
const headers = 28

describe('limits', () => {
  let net: NetworkHost
  let web: Guest
  let near: Guest

  beforeAll(async () => {
    net = await NetworkHost.open({ announce: true })
    const vpc = net.vpc('vpc-a')
    web = await net.guest(vpc, '10.0.1.5', { public_ip: publicAddress })
    near = await net.guest(vpc, '10.0.1.6')
    // larger than what it was told, so that the network has to say no
    for (const guest of [web, near]) await ipBatch(guest.namespace, ['link set eth0 mtu 1500'])
    for (const peer of [web, near, net.internet]) {
      await peer.listen('tcp', 80)
      await peer.listen('udp', 80)
    }
  })

  afterAll(() => net.close())

  test('1450 bytes pass between guests, and of one more the sender is told', async () => {
    const options = { dontFragment: true }
    expect(await web.reaches('udp', near.nic.ip, 80, { ...options, size: 1450 - headers })).toBe(web.nic.ip)
    const tooLarge = await web.open('udp', near.nic.ip, 80, { ...options, size: 1451 - headers })
    expect(tooLarge.error).toBe('EMSGSIZE')
    await tooLarge.close()
  })

  test('so is a sender in the world', async () => {
    const tooLarge = await net.internet.open('udp', publicAddress, 80, { dontFragment: true, size: 1451 - headers })
    expect(tooLarge.error).toBe('EMSGSIZE')
    expect((await tooLarge.ask({ size: 1450 - headers })).heard).toBe(world.router)
    await tooLarge.close()
  })

  test('TCP segments to the world and from it fit from the start', async () => {
    const outward = await web.open('tcp', world.router, 80)
    const inward = await net.internet.open('tcp', publicAddress, 80)
    expect(outward.heard).toBe(publicAddress)
    expect(await outward.segmentSize()).toBe(1450 - 40 - 12) // IPv4 and TCP headers, and timestamps
    expect(inward.heard).toBe(world.router)
    for (const flow of [outward, inward]) await flow.close()
  })

  test('a guest that opens connections without end gets so many and no more, and another one is served', async () => {
    const answered = await web.flood(world.router, 80, mostConnections + 500)
    expect(answered).toBeLessThanOrEqual(mostConnections)
    expect(answered).toBeGreaterThan(0.9 * mostConnections)
    const namespace = net.networks.namespaceOf('vpc-a')
    const { stdout } = await runCommand([...inNamespace(namespace), 'conntrack', '-C'])
    expect(Number(stdout)).toBeLessThan(mostConnections + 100)
    expect(await web.fails('tcp', world.router, 80)).toBe('timeout')
    expect(await near.reaches('tcp', world.router, 80)).toBe(world.host)
    expect(await near.pings(web.nic.ip)).toBe(true)
  })

  test('a guest is held to its bandwidth in both directions, and is not without one', async () => {
    const configured = 40_000_000
    const pair = [await net.guest('vpc-a', '10.0.2.8'), await net.guest('vpc-a', '10.0.2.9')] as const
    const [limited, other] = pair
    const measure = async (port: number) => ({
      from: await limited.throughput(other, other.nic.ip, port, 2),
      to: await other.throughput(limited, limited.nic.ip, port + 1, 2),
    })
    const free = await measure(90)
    await net.change(limited, { bandwidth_mbps: configured / 1_000_000 })
    await limited.throughput(other, other.nic.ip, 92, 1.5) // spends what may come at once
    const held = await measure(93)
    expect(Math.min(free.from, free.to)).toBeGreaterThan(4 * configured)
    // towards a guest packets wait, from it they are dropped, which TCP answers with less than it may send
    expect(held.to / configured).toBeGreaterThan(0.8)
    expect(held.to / configured).toBeLessThan(1.15)
    expect(held.from / configured).toBeGreaterThan(0.4)
    expect(held.from / configured).toBeLessThan(1.15)
  })
})
