import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dhcp, dhcpFrame, forgedOffer, leasesIn } from './dhcp.ts'
import { arp, ethernet, etherType, everybody, ipv4, udp } from './frames.ts'
import { type Guest, group, NetworkHost, rule } from './network-host.ts'

const gateway = '02:00:00:00:00:01'
const nobody = '00:00:00:00:00:00'

describe('a guest that lies', () => {
  let net: NetworkHost
  let liar: Guest
  let victim: Guest
  let third: Guest

  beforeAll(async () => {
    net = await NetworkHost.open()
    const vpc = net.vpc('vpc-a')
    liar = await net.guest(vpc, '10.0.1.5')
    victim = await net.guest(vpc, '10.0.1.6')
    third = await net.guest(vpc, '10.0.1.7')
    await victim.listen('udp', 80)
    await third.listen('udp', 80)
  })

  afterAll(() => net.close())

  let fences = 0

  /** A frame of the liar's that is as it should be; nothing of what it sent before is on the way when it arrives. */
  const fence = (text: string) =>
    ethernet(gateway, liar.nic.mac, etherType.ipv4, ipv4(liar.nic.ip, victim.nic.ip, udp(9, 9, text)))

  /** Which of these frames that hold `evil` arrive at the victim: the start of each, in hexadecimal. */
  async function arriving(...frames: Buffer[]): Promise<string[]> {
    const last = `fence ${++fences}`
    await victim.sniff()
    await liar.sendFrames(...frames, fence(last))
    const arrived = await victim.sniffedUntil(last)
    return arrived.filter((frame) => frame.includes('evil')).map((frame) => frame.toString('hex', 0, 42))
  }

  const evilUdp = (from: string, mac = liar.nic.mac, to = victim.nic.ip, toMac = gateway) =>
    ethernet(toMac, mac, etherType.ipv4, ipv4(from, to, udp(9, 80, 'evil')))

  test('is heard while it does not lie', async () => {
    expect((await arriving(evilUdp(liar.nic.ip))).length).toBe(1)
  })

  test("cannot send from another's MAC", async () => {
    expect(await arriving(evilUdp(liar.nic.ip, third.nic.mac), evilUdp(third.nic.ip, third.nic.mac))).toEqual([])
  })

  test("cannot send from another's address, whoever's it is", async () => {
    const addresses = [
      third.nic.ip,
      victim.nic.ip,
      '10.0.1.1',
      '10.0.3.3',
      '203.0.113.99',
      '169.254.169.254',
      '0.0.0.0',
    ]
    expect(await arriving(...addresses.map((address) => evilUdp(address)))).toEqual([])
  })

  test('cannot speak to the victim but through the gateway', async () => {
    expect(await arriving(evilUdp(liar.nic.ip, liar.nic.mac, victim.nic.ip, victim.nic.mac))).toEqual([])
  })

  test('cannot reach others by broadcast or multicast', async () => {
    const targets = ['255.255.255.255', '10.0.1.255', '10.0.255.255', '224.0.0.1', '224.0.0.251', '239.1.1.1']
    const frames = targets.flatMap((to) => [
      evilUdp(liar.nic.ip, liar.nic.mac, to, everybody),
      evilUdp(liar.nic.ip, liar.nic.mac, to, '01:00:5e:00:00:fb'),
      evilUdp(liar.nic.ip, liar.nic.mac, to, gateway),
    ])
    expect(await arriving(...frames)).toEqual([])
  })

  test('cannot send IPv6, VLAN tags or any other protocol but IPv4', async () => {
    const inner = ipv4(liar.nic.ip, victim.nic.ip, udp(9, 80, 'evil'))
    const tagged = Buffer.concat([Buffer.from([0, 5, 8, 0]), inner])
    const ipv6 = Buffer.concat([Buffer.from('6000000000043aff', 'hex'), Buffer.alloc(32, 0xfe), Buffer.from('evil')])
    const frames = [everybody, gateway, victim.nic.mac].flatMap((to) => [
      ethernet(to, liar.nic.mac, etherType.ipv6, ipv6),
      ethernet(to, liar.nic.mac, etherType.vlan, tagged),
      ethernet(to, liar.nic.mac, etherType.lldp, Buffer.from('evil')),
      ethernet(to, liar.nic.mac, etherType.pppoe, inner),
      ethernet(to, liar.nic.mac, 0x88b5, Buffer.from('evil')),
    ])
    expect(await arriving(...frames)).toEqual([])
  })

  test("cannot hide another's address behind tags and labels", async () => {
    const inner = ipv4(third.nic.ip, victim.nic.ip, udp(9, 80, 'evil'))
    const tag = (id: number, type: number) => Buffer.from([0, id, type >> 8, type & 255])
    const label = Buffer.from([0, 0x01, 0x01, 64]) // 16, the last of its stack
    const payloads: [number, Buffer][] = [
      [etherType.vlan, Buffer.concat([tag(0, etherType.ipv4), inner])], // a priority, which the kernel takes off
      [etherType.vlan, Buffer.concat([tag(0, etherType.vlan), tag(0, etherType.ipv4), inner])],
      [etherType.qinq, Buffer.concat([tag(0, etherType.vlan), tag(0, etherType.ipv4), inner])],
      [etherType.qinq, Buffer.concat([tag(5, etherType.vlan), tag(6, etherType.ipv4), inner])],
      [etherType.mpls, Buffer.concat([label, inner])],
    ]
    const frames = [everybody, gateway, victim.nic.mac].flatMap((to) =>
      payloads.map(([type, payload]) => ethernet(to, liar.nic.mac, type, payload)),
    )
    expect(await arriving(...frames)).toEqual([])
  })

  test("cannot draw another's packets to itself by forged ARP answers, gratuitous ARP or requests", async () => {
    const claim = { mac: liar.nic.mac, ip: victim.nic.ip }
    const forged = [
      arp(2, claim, { mac: gateway, ip: '10.0.1.1' }),
      arp(1, claim, { mac: nobody, ip: victim.nic.ip }),
      arp(2, claim, { mac: everybody, ip: victim.nic.ip }),
      arp(1, claim, { mac: nobody, ip: '10.0.1.1' }),
    ]
    await liar.sniff()
    const frames = forged.flatMap((packet) =>
      [gateway, everybody, third.nic.mac].map((to) => ethernet(to, liar.nic.mac, etherType.arp, packet)),
    )
    expect(await arriving(...frames)).toEqual([])
    expect(await third.reaches('udp', victim.nic.ip, 80)).toBe(third.nic.ip)
    const back = await third.open('udp', liar.nic.ip, 80, { expect: 'nothing' }) // a frame that does reach it, last
    expect(back.error).toBe('ECONNREFUSED')
    await back.close()
    const seen = await liar.sniffedUntil(Buffer.from(ipv4(third.nic.ip, liar.nic.ip, Buffer.alloc(0)).subarray(12)))
    expect(
      seen.filter((frame) => frame.includes(ipv4(third.nic.ip, victim.nic.ip, Buffer.alloc(0)).subarray(12))),
    ).toEqual([])
  })

  test('hears the MAC of the gateway for each other address, and nothing for its own or for one that nobody has', async () => {
    await liar.sniff()
    const ask = (ip: string, from = liar.nic.ip) =>
      ethernet(everybody, liar.nic.mac, etherType.arp, arp(1, { mac: liar.nic.mac, ip: from }, { mac: nobody, ip }))
    const asked = [liar.nic.ip, '10.0.3.3', victim.nic.ip, third.nic.ip, '10.0.1.1']
    await liar.sendFrames(
      ask(victim.nic.ip, third.nic.ip),
      ask(victim.nic.ip, '0.0.0.0'),
      ...asked.map((ip) => ask(ip)),
    )
    const answer = (ip: string) => arp(2, { mac: gateway, ip }, { mac: liar.nic.mac, ip: liar.nic.ip })
    const frames = await liar.sniffedUntil(answer('10.0.1.1'))
    const answers = frames.filter((frame) => frame.readUInt16BE(12) === etherType.arp && frame.readUInt16BE(20) === 2)
    expect(answers.map((frame) => frame.subarray(14, 42).toString('hex'))).toEqual(
      [victim.nic.ip, third.nic.ip, '10.0.1.1'].map((ip) => answer(ip).toString('hex')),
    )
  })

  /** The answers of the DHCP server to these frames. */
  async function offersFor(...frames: Buffer[]) {
    await liar.sniff()
    const own = dhcpFrame(liar, { type: dhcp.discover })
    await liar.sendFrames(...frames, own)
    return leasesIn(await liar.sniffedUntil(Buffer.from([...`${liar.nic.ip}`.split('.').map(Number), 10, 0, 1, 1])))
  }

  test("gets no lease of another's, by its MAC in the frame nor in the message", async () => {
    const stolen = [
      dhcpFrame(liar, { type: dhcp.discover, from: victim.nic.mac, client: victim.nic.mac }),
      dhcpFrame(liar, { type: dhcp.discover, from: victim.nic.mac }),
      dhcpFrame(liar, { type: dhcp.discover, client: victim.nic.mac }),
      dhcpFrame(liar, { type: dhcp.discover, client: victim.nic.mac, has: liar.nic.ip, to: '10.0.1.1' }),
    ]
    const offers = await offersFor(...stolen)
    expect(offers.map(({ type, address }) => [type, address])).toEqual([[dhcp.offer, liar.nic.ip]])
  })

  test("cannot have another's address declined", async () => {
    const decline = { type: dhcp.decline, client: victim.nic.mac, requested: victim.nic.ip, server: '10.0.1.1' }
    await liar.sendFrames(dhcpFrame(liar, decline))
    await victim.sniff()
    await victim.sendFrames(dhcpFrame(victim, { type: dhcp.discover }))
    const [offer] = leasesIn(await victim.sniffedUntil(Buffer.from([53, 1, dhcp.offer])))
    expect(offer?.address).toBe(victim.nic.ip)
  })

  test('cannot play the DHCP server for others', async () => {
    const body = forgedOffer(victim.nic.mac, '10.0.1.66')
    const offer = (to: string, toMac: string) =>
      ethernet(
        toMac,
        liar.nic.mac,
        etherType.ipv4,
        ipv4(liar.nic.ip, to, udp(67, 68, Buffer.concat([body, Buffer.from('evil')]))),
      )
    const frames = [
      offer(victim.nic.ip, gateway),
      offer('255.255.255.255', everybody),
      offer('255.255.255.255', victim.nic.mac),
    ]
    expect(await arriving(...frames)).toEqual([])
  })

  test('cannot bring past the rules in fragments what they do not let in whole', async () => {
    await net.setGroups(group('sg-some', rule('ingress', 'udp', 9), rule('ingress', 'udp', 80)))
    await net.change(victim, { security_groups: ['sg-some'] })
    const whole = (port: number) =>
      udp(9, port, Buffer.concat([Buffer.alloc(40), Buffer.from('evil'), Buffer.alloc(44)]))
    let id = 0
    const fragments = (port: number, cut: number) => {
      id++
      const datagram = whole(port)
      const first = ipv4(liar.nic.ip, victim.nic.ip, datagram.subarray(0, cut), { id, moreFragments: true })
      const rest = ipv4(liar.nic.ip, victim.nic.ip, datagram.subarray(cut), { id, offset: cut })
      return [first, rest].map((packet) => ethernet(gateway, liar.nic.mac, etherType.ipv4, packet))
    }
    expect(await arriving(...fragments(81, 8))).toEqual([])
    expect(await arriving(...fragments(81, 64))).toEqual([])
    const [, rest = Buffer.alloc(0)] = fragments(80, 8)
    expect(await arriving(rest)).toEqual([])
    expect((await arriving(...fragments(80, 64))).length).toBe(1)
    // one that says again, and otherwise, what was said already
    const [allowed, end] = fragments(80, 64)
    id--
    const [other] = fragments(81, 72)
    for (const frames of [
      [allowed, other, end],
      [other, allowed, end],
    ]) {
      const arrived = await arriving(...frames.flatMap((frame) => frame ?? []))
      expect(arrived.filter((start) => start.slice(72, 76) !== (80).toString(16).padStart(4, '0'))).toEqual([])
    }
    await net.change(victim, { security_groups: ['sg-open'] })
  })
})
