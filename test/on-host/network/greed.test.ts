import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dhcp, dhcpFrame, leasesIn } from './dhcp.ts'
import { dnsAnswer, dnsQuestion, lookUp } from './dns.ts'
import { ethernet, etherType, ipv4, udp } from './frames.ts'
import { type Guest, NetworkHost } from './network-host.ts'
import { useNameServers } from './resolv-conf.ts'
import { world } from './world.ts'

const gateway = '10.0.1.1'
const gatewayMac = '02:00:00:00:00:01'

describe('a guest that takes all it can of the services of its VPC', () => {
  let net: NetworkHost
  let forgetNameServers: () => Promise<void>
  let greedy: Guest
  let other: Guest

  beforeAll(async () => {
    forgetNameServers = await useNameServers(world.beyond)
    net = await NetworkHost.open()
    // dnsmasq waits on for an answer when one is for another name
    await net.internet.respond(53, dnsAnswer('world.example', '192.0.2.80'), world.beyond)
    const vpc = net.vpc('vpc-a')
    greedy = await net.guest(vpc, '10.0.1.5')
    other = await net.guest(vpc, '10.0.1.6', { hostname: 'other' })
  })

  afterAll(async () => {
    await net.close()
    await forgetNameServers()
  })

  test('holds a few connections to the name server, and others are served by it', async () => {
    const held = await Promise.all(
      Array.from({ length: 60 }, () => greedy.open('tcp', gateway, 53, { expect: 'nothing' })),
    )
    const found = { code: 0, addresses: ['10.0.1.6'] }
    expect(await lookUp(other, gateway, 'other', { protocol: 'tcp' })).toEqual(found)
    expect(await lookUp(greedy, gateway, 'other')).toEqual(found) // by UDP it has its share yet
    for (const flow of held) await flow.close()
    expect(await lookUp(greedy, gateway, 'other', { protocol: 'tcp' })).toEqual(found)
  })

  test('asks for hundreds of names that nobody answers for, and others have their answers', async () => {
    const asks = 2000
    const question = (n: number) => udp(20_000 + n, 53, dnsQuestion(`name-${n}.example`))
    const frames = Array.from({ length: asks }, (_, n) =>
      ethernet(gatewayMac, greedy.nic.mac, etherType.ipv4, ipv4(greedy.nic.ip, gateway, question(n))),
    )
    await greedy.sendFrames(...frames)
    // more than dnsmasq keeps when it is not told otherwise
    const asked = async () => (await net.internet.asked(53)).length
    await expect.poll(asked).toBeGreaterThan(150)
    expect(await lookUp(other, gateway, 'world.example')).toEqual({ code: 0, addresses: ['192.0.2.80'] })
    expect(await asked()).toBeLessThan(asks / 2)
  })

  test('asks for its lease without end, and is answered now and then; others are at once', async () => {
    const asks = 400
    await greedy.sniff()
    await other.sniff()
    await greedy.sendFrames(...Array.from({ length: asks }, () => dhcpFrame(greedy, { type: dhcp.discover })))
    await other.sendFrames(dhcpFrame(other, { type: dhcp.discover }))
    const [offer] = leasesIn(await other.sniffedUntil(Buffer.from([53, 1, dhcp.offer])))
    expect(offer?.address).toBe(other.nic.ip)
    const last = ethernet(
      gatewayMac,
      other.nic.mac,
      etherType.ipv4,
      ipv4(other.nic.ip, greedy.nic.ip, udp(9, 9, 'last')),
    )
    await other.sendFrames(last)
    const offers = leasesIn(await greedy.sniffedUntil('last'))
    expect(offers.length).toBeGreaterThan(0)
    expect(offers.length).toBeLessThan(asks / 2)
  })
})
