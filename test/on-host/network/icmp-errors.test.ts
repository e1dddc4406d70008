import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ethernet, etherType, icmpError, ipBytes, ipv4, udp } from './frames.ts'
import { type Guest, group, NetworkHost } from './network-host.ts'

const gateway = '02:00:00:00:00:01'
const sourcePort = 5555

describe('ICMP errors', () => {
  let net: NetworkHost
  let liar: Guest
  let client: Guest
  let server: Guest

  beforeAll(async () => {
    net = await NetworkHost.open()
    const vpc = net.vpc('vpc-a')
    liar = await net.guest(vpc, '10.0.1.5')
    client = await net.guest(vpc, '10.0.1.6')
    server = await net.guest(vpc, '10.0.1.7')
    await server.listen('udp', 80)
    // connection tracking takes errors for part of the connection, and groups are not asked of that
    await net.setGroups(group('sg-none'))
    await net.change(liar, { security_groups: ['sg-none'] })
  })

  afterAll(() => net.close())

  /** What arrives at the client of an error about what it sent to the server. */
  async function arriving(from: Guest, type: number, code: number, rest: number): Promise<number> {
    const about = ipv4(client.nic.ip, server.nic.ip, udp(sourcePort, 80, 'evil'))
    const error = ipv4(from.nic.ip, client.nic.ip, icmpError(type, code, about, rest), { protocol: 1 })
    await client.sniff()
    await from.sendFrames(ethernet(gateway, from.nic.mac, etherType.ipv4, error))
    const fence = ipv4(server.nic.ip, client.nic.ip, udp(9, 9, 'fence'))
    await server.sendFrames(ethernet(gateway, server.nic.mac, etherType.ipv4, fence))
    return (await client.sniffedUntil('fence')).filter((frame) => frame.includes('evil')).length
  }

  test.each([
    ['port unreachable', 3, 3, 0],
    ['host unreachable', 3, 1, 0],
    ['fragmentation needed', 3, 4, 552],
    ['source quench', 4, 0, 0],
    ['redirect', 5, 1, ipBytes('10.0.1.5').readUInt32BE()],
    ['time exceeded', 11, 0, 0],
    ['parameter problem', 12, 0, 0],
  ])('%s comes of who was spoken to, and of nobody else', async (_name, type, code, rest) => {
    const flow = await client.open('udp', server.nic.ip, 80, { sourcePort })
    expect(flow.heard).toBe(client.nic.ip)
    expect(await arriving(liar, type, code, rest)).toBe(0)
    expect((await flow.ask()).heard).toBe(client.nic.ip)
    expect(await arriving(server, type, code, rest)).toBe(1)
    await flow.close()
  })
})
