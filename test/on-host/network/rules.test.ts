import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Guest, group, NetworkHost, rule } from './network-host.ts'
import { world } from './world.ts'

describe('security groups', () => {
  let net: NetworkHost
  let web: Guest
  let db: Guest
  let stranger: Guest

  beforeAll(async () => {
    net = await NetworkHost.open()
    const vpc = net.vpc('vpc-a')
    web = await net.guest(vpc, '10.0.1.5', { security_groups: ['sg-web'] })
    db = await net.guest(vpc, '10.0.1.6', { security_groups: ['sg-db'] })
    stranger = await net.guest(vpc, '10.0.2.7', { security_groups: ['sg-out'] })
    const ports = [79, 80, 81, 89, 90, 91, 0xffff]
    for (const peer of [db, net.internet]) {
      await peer.listen('tcp', ...ports)
      await peer.listen('udp', ...ports)
    }
  })

  afterAll(() => net.close())

  const everythingOut = rule('egress', 'any', null)

  test('what no rule allows does not come in, and does not go out', async () => {
    await net.setGroups(group('sg-web', everythingOut), group('sg-db'))
    expect(await web.fails('tcp', db.nic.ip, 80)).toBe('timeout')
    expect(await web.fails('udp', db.nic.ip, 80)).toBe('timeout')
    expect(await web.pingFails(db.nic.ip)).toBe(true)
    expect(await web.reaches('tcp', world.beyond, 80)).toBe(world.host)
    expect(await db.fails('tcp', world.beyond, 80)).toBe('timeout')
    expect(await db.fails('udp', world.beyond, 80)).toBe('timeout')
    expect(await db.pingFails(world.beyond)).toBe(true)
  })

  test('a guest without a group, and one whose group is not known, reach nobody and are reached by nobody', async () => {
    await net.setGroups(group('sg-web', everythingOut))
    for (const groups of [[], ['sg-unheard']]) {
      await net.change(db, { security_groups: groups })
      expect(await web.fails('tcp', db.nic.ip, 80)).toBe('timeout')
      expect(await db.fails('tcp', world.beyond, 80)).toBe('timeout')
    }
    await net.change(db, { security_groups: ['sg-db'] })
  })

  test('the egress of one side alone is not enough, nor the ingress of the other', async () => {
    await net.setGroups(group('sg-web'), group('sg-db', rule('ingress', 'any', null), everythingOut))
    expect(await web.fails('tcp', db.nic.ip, 80)).toBe('timeout')
    expect(await db.fails('tcp', web.nic.ip, 80)).toBe('timeout')
    await net.setGroups(group('sg-web', everythingOut), group('sg-db', rule('ingress', 'any', null)))
    expect(await web.reaches('tcp', db.nic.ip, 80)).toBe(web.nic.ip)
  })

  test('a rule for a CIDR lets in whom it holds, and nobody else', async () => {
    await net.setGroups(
      group('sg-web', everythingOut),
      group('sg-db', rule('ingress', 'tcp', 80, { cidr: '10.0.1.4/31' })),
    )
    expect(await web.reaches('tcp', db.nic.ip, 80)).toBe(web.nic.ip)
    expect(await stranger.fails('tcp', db.nic.ip, 80)).toBe('timeout')
    await net.setGroups(
      group('sg-web', everythingOut),
      group('sg-db', rule('ingress', 'tcp', 80, { cidr: '10.0.2.7/32' })),
    )
    expect(await web.fails('tcp', db.nic.ip, 80)).toBe('timeout')
    expect(await stranger.reaches('tcp', db.nic.ip, 80)).toBe(stranger.nic.ip)
  })

  test.each(['tcp', 'udp'] as const)('a range of %s ports holds its ends and nothing beyond', async (protocol) => {
    await net.setGroups(group('sg-web', everythingOut), group('sg-db', rule('ingress', protocol, [80, 90])))
    for (const port of [80, 89, 90]) expect(await web.reaches(protocol, db.nic.ip, port)).toBe(web.nic.ip)
    for (const port of [79, 91]) expect(await web.fails(protocol, db.nic.ip, port)).toBe('timeout')
    const another = protocol === 'tcp' ? 'udp' : 'tcp'
    expect(await web.fails(another, db.nic.ip, 80)).toBe('timeout')
    await net.setGroups(group('sg-web', everythingOut), group('sg-db', rule('ingress', protocol, [0xffff, 0xffff])))
    expect(await web.reaches(protocol, db.nic.ip, 0xffff)).toBe(web.nic.ip)
    expect(await web.fails(protocol, db.nic.ip, 80)).toBe('timeout')
  })

  test('a rule for ICMP lets pings in and nothing else', async () => {
    await net.setGroups(group('sg-web', everythingOut), group('sg-db', rule('ingress', 'icmp', null)))
    expect(await web.pings(db.nic.ip)).toBe(true)
    expect(await web.fails('tcp', db.nic.ip, 80)).toBe('timeout')
    await net.setGroups(group('sg-web', everythingOut), group('sg-db', rule('ingress', 'tcp', null)))
    expect(await web.pingFails(db.nic.ip)).toBe(true)
    expect(await web.reaches('tcp', db.nic.ip, 80)).toBe(web.nic.ip)
  })

  test('a rule for a group lets its members in, from when they join until they leave', async () => {
    const members = { security_group: 'sg-club' }
    await net.setGroups(group('sg-web', everythingOut), group('sg-db', rule('ingress', 'tcp', 80, members)))
    expect(await web.fails('tcp', db.nic.ip, 80)).toBe('timeout')
    await net.change(web, { security_groups: ['sg-web', 'sg-club'] })
    expect(await web.reaches('tcp', db.nic.ip, 80)).toBe(web.nic.ip)
    expect(await stranger.fails('tcp', db.nic.ip, 80)).toBe('timeout')
    const flow = await web.open('tcp', db.nic.ip, 80)
    await net.change(web, { security_groups: ['sg-web'] })
    expect(await flow.ask({ expect: 'nothing' })).toEqual({ error: 'timeout' })
    expect(await web.fails('tcp', db.nic.ip, 80)).toBe('timeout')
  })

  test('egress rules hold for CIDRs, groups and ports', async () => {
    const inward = group('sg-db', rule('ingress', 'any', null))
    await net.setGroups(group('sg-web', rule('egress', 'tcp', [80, 81], { cidr: `${db.nic.ip}/32` })), inward)
    expect(await web.reaches('tcp', db.nic.ip, 81)).toBe(web.nic.ip)
    expect(await web.fails('tcp', db.nic.ip, 79)).toBe('timeout')
    expect(await web.fails('udp', db.nic.ip, 80)).toBe('timeout')
    expect(await web.fails('tcp', world.beyond, 80)).toBe('timeout')
    await net.setGroups(group('sg-web', rule('egress', 'udp', null, { security_group: 'sg-db' })), inward)
    expect(await web.reaches('udp', db.nic.ip, 91)).toBe(web.nic.ip)
    expect(await web.fails('tcp', db.nic.ip, 80)).toBe('timeout')
    expect(await web.fails('udp', world.beyond, 80)).toBe('timeout')
    await net.setGroups(group('sg-web', rule('egress', 'tcp', 80, { cidr: `${world.beyond}/32` })), inward)
    expect(await web.reaches('tcp', world.beyond, 80)).toBe(world.host)
    expect(await web.fails('tcp', world.router, 80)).toBe('timeout')
    expect(await web.fails('tcp', db.nic.ip, 80)).toBe('timeout')
  })

  describe.each(['tcp', 'udp'] as const)('an open %s flow', (protocol) => {
    const allowed = group('sg-db', rule('ingress', protocol, 80))
    const denied = group('sg-db')

    test('ends with the rule that let it in, at the next packet in either direction, and goes on when it is back', async () => {
      const client = group('sg-web', everythingOut)
      await net.setGroups(client, allowed)
      const flow = await web.open(protocol, db.nic.ip, 80)
      expect(flow.heard).toBe(web.nic.ip)
      await net.setGroups(client, denied)
      await db.tell(protocol, 80)
      expect(await flow.hear('nothing')).toEqual({ error: 'timeout' })
      expect(await flow.ask({ expect: 'nothing' })).toEqual({ error: 'timeout' })
      await net.setGroups(client, allowed)
      expect(await flow.ask()).toMatchObject({ heard: expect.any(String) })
      await flow.close()
    })

    test('ends with the rule that let it out', async () => {
      await net.setGroups(group('sg-web', rule('egress', protocol, 80)), allowed)
      const flow = await web.open(protocol, db.nic.ip, 80)
      const toWorld = await web.open(protocol, world.beyond, 80)
      expect([flow.heard, toWorld.heard]).toEqual([web.nic.ip, world.host])
      await net.setGroups(group('sg-web'), allowed)
      await db.tell(protocol, 80)
      await net.internet.tell(protocol, 80)
      for (const each of [flow, toWorld]) {
        expect(await each.hear('nothing')).toEqual({ error: 'timeout' })
        expect(await each.ask({ expect: 'nothing' })).toEqual({ error: 'timeout' })
        await each.close()
      }
    })

    test('is not disturbed by the rules of others, whichever side speaks', async () => {
      const client = group('sg-web', everythingOut)
      await net.setGroups(client, allowed)
      const flow = await web.open(protocol, db.nic.ip, 80)
      await net.setGroups(client, group('sg-db', rule('ingress', protocol, 80), rule('ingress', 'icmp', null)))
      await net.change(stranger, { security_groups: ['sg-open'] })
      await net.change(stranger, { security_groups: ['sg-out'] })
      await net.setGroups(client, allowed)
      await db.tell(protocol, 80)
      expect(await flow.hear('answer')).toEqual({ heard: 'unasked' })
      expect((await flow.ask()).heard).toBe(web.nic.ip)
      await flow.close()
    })
  })
})
