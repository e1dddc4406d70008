import { runCommand } from '@berth/agent/sys/run-command.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dhcp, dhcpFrame, type Lease, leasesIn } from './dhcp.ts'
import { dnsAnswer, dnsName, lookUp } from './dns.ts'
import { type Guest, group, NetworkHost } from './network-host.ts'
import { useNameServers } from './resolv-conf.ts'
import { world } from './world.ts'

const gateway = '10.0.1.1'

describe('names', () => {
  let net: NetworkHost
  let forgetNameServers: () => Promise<void>
  let web: Guest
  let stranger: Guest

  beforeAll(async () => {
    forgetNameServers = await useNameServers('127.0.0.1', world.beyond)
    net = await NetworkHost.open()
    await net.internet.respond(53, dnsAnswer('world.example', '192.0.2.80'), world.beyond)
    const [a, b] = [net.vpc('vpc-a'), net.vpc('vpc-b')]
    web = await net.guest(a, '10.0.1.5', { hostname: 'web' })
    await net.guest(a, '10.0.1.6', { hostname: 'db' })
    stranger = await net.guest(b, '10.0.1.7', { hostname: 'lonely' })
  })

  afterAll(async () => {
    await net.close()
    await forgetNameServers()
  })

  const found = (...addresses: string[]) => ({ code: 0, addresses })
  const noSuchName = { code: 3, addresses: [] }

  test('the name of an instance leads to it inside its VPC, with and without the domain', async () => {
    expect(await lookUp(web, gateway, 'db.vpc.internal')).toEqual(found('10.0.1.6'))
    expect(await lookUp(web, gateway, 'db')).toEqual(found('10.0.1.6'))
    expect(await lookUp(stranger, gateway, 'lonely.vpc.internal')).toEqual(found('10.0.1.7'))
  })

  test('and nowhere else', async () => {
    expect(await lookUp(stranger, gateway, 'db.vpc.internal')).toEqual(noSuchName)
    expect(await lookUp(web, gateway, 'lonely.vpc.internal')).toEqual(noSuchName)
    expect(await lookUp(web, gateway, 'lonely')).toEqual(noSuchName)
  })

  test('instances of one name are all found, one that goes is found no more, and a new name in place of the old', async () => {
    const second = await net.guest('vpc-a', '10.0.2.6', { hostname: 'db' })
    expect(await lookUp(web, gateway, 'db.vpc.internal')).toEqual(found('10.0.1.6', '10.0.2.6'))
    await net.change(second, { hostname: 'cache' })
    await expect.poll(() => lookUp(web, gateway, 'cache')).toEqual(found('10.0.2.6'))
    await expect.poll(() => lookUp(web, gateway, 'db')).toEqual(found('10.0.1.6'))
    await net.remove(second)
    await expect.poll(() => lookUp(web, gateway, 'cache.vpc.internal')).toEqual(noSuchName)
  })

  test("names of the world are asked of the host's name server, names of the VPC and bare ones are not", async () => {
    expect(await lookUp(web, gateway, 'world.example')).toEqual(found('192.0.2.80'))
    for (const name of ['gone.vpc.internal', 'gone']) expect(await lookUp(web, gateway, name)).toEqual(noSuchName)
    expect(await lookUp(web, gateway, '9.1.0.10.in-addr.arpa', { type: 'PTR' })).toEqual(noSuchName)
    const asked = await net.internet.asked(53)
    expect(asked.length).toBeGreaterThan(0)
    for (const question of asked) expect(question.includes(dnsName('world.example'))).toBe(true)
  })

  test('a guest that no rule lets out still has names', async () => {
    await net.setGroups(group('sg-none'))
    await net.change(web, { security_groups: ['sg-none'] })
    expect(await lookUp(web, gateway, 'db')).toEqual(found('10.0.1.6'))
    await net.change(web, { security_groups: ['sg-open'] })
  })

  test("a guest cannot ask another VPC's name server, nor can the host's network", async () => {
    const { stdout } = await runCommand(['ip', '-4', '-brief', 'addr', 'show'])
    const inside = [...stdout.matchAll(/^vu.*?(100\.\d+\.\d+\.)(\d+)/gm)].map(
      ([, net, last]) => `${net}${Number(last) + 1}`,
    )
    expect(inside.length).toBe(2)
    for (const address of inside) {
      expect(await net.host.fails('udp', address, 53)).toBe('timeout')
      expect(await net.host.fails('tcp', address, 53)).toBe('timeout')
    }
  })

  test('a guest that asks gets a lease of its own address, and may renew it', async () => {
    const offer = await answerTo(web, { type: dhcp.discover })
    expect(offer).toMatchObject({ type: dhcp.offer, address: web.nic.ip })
    const ack = await answerTo(web, { type: dhcp.request, requested: web.nic.ip, server: gateway })
    const renewed = await answerTo(web, { type: dhcp.request, has: web.nic.ip, to: gateway })
    for (const lease of [ack, renewed]) {
      expect(lease).toMatchObject({ type: dhcp.ack, address: web.nic.ip })
      const told = [1, 3, 6, 15, 26, 51].map((code) => lease.options.get(code)?.toString('hex'))
      const domain = Buffer.from('vpc.internal').toString('hex')
      expect(told).toEqual(['ffffff00', '0a000101', '0a000101', domain, '05aa', '00000e10']) // MTU 1450, one hour
    }
  })

  test('a guest that asks for another address is told no', async () => {
    const answer = await answerTo(web, { type: dhcp.request, requested: '10.0.1.6' })
    expect(answer.type).toBe(dhcp.refused)
  })

  test('a guest that calls itself something in its lease is not found by that', async () => {
    const name = Buffer.from('wpad')
    await answerTo(web, { type: dhcp.request, requested: web.nic.ip, server: gateway, name })
    expect(await lookUp(web, gateway, 'wpad')).toEqual(noSuchName)
    expect(await lookUp(web, gateway, 'wpad.vpc.internal')).toEqual(noSuchName)
  })

  test.each([
    ['with a client id', Buffer.from([1, 6, 0, 0, 0, 0, 0x41])],
    ['without one', undefined],
  ])('an address that had another holder is leased to the next one at once: %s', async (_how, clientId) => {
    const address = '10.0.2.40'
    const take = async (guest: Guest) => {
      const message = { type: dhcp.request, requested: address, server: '10.0.2.1' }
      return answerTo(guest, clientId === undefined ? message : { ...message, clientId })
    }
    const first = await net.guest('vpc-a', address)
    expect(await take(first)).toMatchObject({ type: dhcp.ack, address })
    await net.remove(first)
    const second = await net.guest('vpc-a', address)
    expect(second.nic.mac).not.toBe(first.nic.mac)
    expect(await answerTo(second, { type: dhcp.discover })).toMatchObject({ type: dhcp.offer, address })
    expect(await take(second)).toMatchObject({ type: dhcp.ack, address })
    await net.remove(second)
  })

  async function answerTo(guest: Guest, message: Parameters<typeof dhcpFrame>[1]): Promise<Lease> {
    await guest.sniff()
    await guest.sendFrames(dhcpFrame(guest, message))
    const [lease] = leasesIn(await guest.sniffedUntil(Buffer.from('6382536335', 'hex')))
    if (lease === undefined) throw new Error('there was no answer')
    return lease
  }
})

describe('a host without a name server', () => {
  let net: NetworkHost
  let forgetNameServers: () => Promise<void>
  let guest: Guest

  beforeAll(async () => {
    forgetNameServers = await useNameServers()
    net = await NetworkHost.open()
    guest = await net.guest(net.vpc('vpc-a'), '10.0.1.5')
  })

  afterAll(async () => {
    await net.close()
    await forgetNameServers()
  })

  test('refuses names of the world at once', async () => {
    expect(await lookUp(guest, gateway, 'world.example')).toEqual({ code: 5, addresses: [] })
  })
})
