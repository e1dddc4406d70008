import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Guest, group, NetworkHost, rule } from './network-host.ts'
import { world } from './world.ts'

/** Addresses of the network between the host and the router. */
const [pub1, pub2, pub3] = ['198.51.100.101', '198.51.100.102', '198.51.100.103']

describe.each([true, false])('public addresses, announced: %s', (announce) => {
  let net: NetworkHost
  let web: Guest
  let near: Guest
  let far: Guest
  let plain: Guest
  let lonely: Guest

  beforeAll(async () => {
    net = await NetworkHost.open({ announce })
    const [a, b] = [net.vpc('vpc-a'), net.vpc('vpc-b')]
    web = await net.guest(a, '10.0.1.5', { public_ip: pub1 })
    near = await net.guest(a, '10.0.2.6', { public_ip: pub2 })
    plain = await net.guest(a, '10.0.1.7')
    far = await net.guest(b, '10.0.1.5', { public_ip: pub3 })
    lonely = await net.guest(b, '10.0.1.8')
    for (const peer of [web, near, far, net.internet]) {
      await peer.listen('tcp', 80)
      await peer.listen('udp', 80)
    }
  })

  afterAll(() => net.close())

  test.each(['tcp', 'udp'] as const)('the host reaches an instance by it (%s)', async (protocol) => {
    expect(await net.host.reaches(protocol, pub1, 80)).toMatch(/^100\.64\./)
    expect(await net.host.pings(pub3)).toBe(true)
  })

  test('the world reaches an instance by it when it is announced, and else does not', async () => {
    if (announce) {
      expect(await net.internet.reaches('tcp', pub1, 80)).toBe(world.router)
      expect(await net.internet.reaches('udp', pub3, 80)).toBe(world.router)
      expect(await net.internet.pings(pub1)).toBe(true)
    } else expect(await net.internet.fails('tcp', pub1, 80)).toMatch(/timeout|EHOSTUNREACH/)
  })

  test('an instance goes out under its own, one without under the host’s', async () => {
    expect(await web.reaches('tcp', world.router, 80)).toBe(announce ? pub1 : world.host)
    expect(await far.reaches('udp', world.router, 80)).toBe(announce ? pub3 : world.host)
    expect(await plain.reaches('tcp', world.router, 80)).toBe(world.host)
  })

  test('an instance reaches itself and others by it, in its VPC and in another', async () => {
    expect(await web.reaches('tcp', pub1, 80)).toBe(pub1)
    expect(await web.reaches('tcp', pub2, 80)).toBe(pub1)
    expect(await plain.reaches('udp', pub2, 80)).toBe(plain.nic.ip)
    expect(await web.reaches('udp', pub3, 80)).toBe(pub1)
    expect(await plain.reaches('tcp', pub3, 80)).toMatch(/^100\.64\./)
    expect(await lonely.reaches('tcp', pub3, 80)).toBe(lonely.nic.ip)
  })

  test('the rules of the instance hold for who comes by it', async () => {
    await net.setGroups(
      group('sg-some', rule('egress', 'any', null), rule('ingress', 'tcp', 80, { cidr: `${pub1}/32` })),
    )
    await net.change(far, { security_groups: ['sg-some'] })
    expect(await web.reaches('tcp', pub3, 80)).toBe(pub1)
    const tries = [near, net.host, lonely].map((peer) => peer.fails('tcp', pub3, 80))
    const failures = await Promise.all([...tries, web.fails('udp', pub3, 80)])
    expect(failures).toEqual(['timeout', 'timeout', 'timeout', 'timeout'])
    await net.change(far, { security_groups: ['sg-open'] })
  })

  test.each(['tcp', 'udp'] as const)('what is open by it ends when it is taken away (%s)', async (protocol) => {
    const inward = await (announce ? net.internet : net.host).open(protocol, pub1, 80)
    const hairpin = await near.open(protocol, pub1, 80)
    const outward = await web.open(protocol, world.router, 80)
    const direct = await plain.open(protocol, web.nic.ip, 80)
    for (const flow of [inward, hairpin, outward, direct]) expect(flow.error).toBe(undefined)
    await net.change(web, { public_ip: '' })
    for (const flow of [inward, hairpin]) expect((await flow.ask({ expect: 'nothing' })).heard).toBe(undefined)
    expect((await outward.ask({ expect: 'nothing' })).heard).not.toBe(pub1)
    expect((await direct.ask()).heard).toBe(plain.nic.ip)
    expect(await net.host.fails(protocol, pub1, 80)).not.toMatch(/answered/)
    await net.change(web, { public_ip: pub1 })
    for (const flow of [inward, hairpin, outward, direct]) await flow.close()
    expect(await net.host.reaches(protocol, pub1, 80)).toMatch(/^100\.64\./)
  })

  test('it moves from one instance to another, also of another VPC', async () => {
    await net.change(web, { public_ip: '' })
    await net.change(lonely, { public_ip: pub1 })
    await lonely.listen('tcp', 8080)
    expect(await (announce ? net.internet : net.host).reaches('tcp', pub1, 8080)).toMatch(
      announce ? world.router : /^100/,
    )
    expect(await web.reaches('tcp', pub1, 8080)).toMatch(/^100\.64\./)
    await net.change(lonely, { public_ip: '' })
    await net.change(web, { public_ip: pub1 })
  })

  test('a card that was asked for before it moved does not take it back', async () => {
    await net.setOwner(pub1, lonely)
    await net.change(lonely, { public_ip: pub1 })
    expect(net.networks.keepsAddress(web.nic)).toBe(false)
    await net.change(web, { public_ip: pub1 })
    expect(net.networks.keepsAddress(web.nic)).toBe(false)
    expect(net.networks.keepsAddress(lonely.nic)).toBe(true)
    await lonely.listen('tcp', 8081)
    expect(await net.host.reaches('tcp', pub1, 8081)).toMatch(/^100\.64\./)
    await net.setOwner(pub1, web)
    await net.change(web, { public_ip: pub1 })
    expect(await net.host.reaches('tcp', pub1, 80)).toMatch(/^100\.64\./)
  })
})
