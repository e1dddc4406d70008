import { readdir } from 'node:fs/promises'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Guest, NetworkHost } from './network-host.ts'
import { world } from './world.ts'

describe('who reaches whom when every rule allows it', () => {
  let net: NetworkHost
  let web: Guest
  let near: Guest
  let far: Guest
  let other: Guest
  let before: string

  beforeAll(async () => {
    net = await NetworkHost.open()
    before = await leftovers()
    const [a, b] = [net.vpc('vpc-a'), net.vpc('vpc-b')]
    web = await net.guest(a, '10.0.1.5')
    near = await net.guest(a, '10.0.1.6')
    far = await net.guest(a, '10.0.2.6')
    other = await net.guest(b, '10.0.1.6') // the address of `near`, in another VPC
    for (const peer of [near, far, other, net.host, net.internet]) await peer.listen('tcp', 80)
    for (const peer of [near, far, other, net.host, net.internet]) await peer.listen('udp', 80)
  })

  afterAll(() => net.close())

  test.each(['tcp', 'udp'] as const)(
    'guests of one subnet and of two reach each other by %s, under their own address',
    async (protocol) => {
      expect(await web.reaches(protocol, '10.0.1.6', 80)).toBe('10.0.1.5')
      expect(await web.reaches(protocol, '10.0.2.6', 80)).toBe('10.0.1.5')
    },
  )

  test('two VPCs with one CIDR do not see each other', async () => {
    await other.listen('tcp', 81) // only there
    expect(await web.fails('tcp', '10.0.1.6', 81)).toBe('ECONNREFUSED')
    expect(await other.fails('tcp', '10.0.2.6', 80)).not.toMatch(/answered/)
    expect(await other.pingFails('10.0.1.5')).toBe(true)
  })

  test('a guest reaches the world as the host, by TCP, UDP and ping', async () => {
    expect(await web.reaches('tcp', world.beyond, 80)).toBe(world.host)
    expect(await web.reaches('udp', world.beyond, 80)).toBe(world.host)
    expect(await web.pings(world.beyond)).toBe(true)
  })

  test('a guest reaches no service of its host under any of its addresses, but may ping it', async () => {
    const uplinks = await hostAddresses()
    expect(uplinks.length).toBe(2)
    const tries = [world.host, ...uplinks].flatMap((address) => [
      web.fails('tcp', address, 80),
      web.fails('udp', address, 80),
    ])
    expect(new Set(await Promise.all(tries))).toEqual(new Set(['timeout']))
    expect(await web.pings(world.host)).toBe(true)
    expect(await net.internet.reaches('tcp', world.host, 80)).toBe(world.router) // it does serve
  })

  test("a guest reaches nothing at another VPC's end of its uplink", async () => {
    const inside = (await hostAddresses()).map((address) => address.replace(/\d+$/, (last) => `${Number(last) + 1}`))
    expect(await web.pings(inside[0] ?? '')).toBe(true) // its own
    expect(await web.pingFails(inside[1] ?? '')).toBe(true)
    const tries = [53, 80].map((port) => web.fails('tcp', inside[1] ?? '', port))
    expect(await Promise.all(tries)).toEqual(['timeout', 'timeout'])
  })

  test('an address that nobody has is not looked for in the world', async () => {
    expect(await web.fails('tcp', '10.0.3.3', 80)).toBe('EHOSTUNREACH')
  })

  test('a guest that goes takes nothing with it, and the last one leaves nothing', async () => {
    await net.remove(near)
    expect(await web.reaches('tcp', '10.0.2.6', 80)).toBe('10.0.1.5')
    for (const guest of [web, far, other]) await net.remove(guest)
    expect(await leftovers()).toBe(before)
  })
})

/** The host's ends of the uplinks, in the order they were made. */
async function hostAddresses(): Promise<string[]> {
  const { stdout } = await runCommand(['ip', '-4', '-brief', 'addr', 'show'])
  return [...stdout.matchAll(/^vu.*?(100\.\d+\.\d+\.\d+)/gm)].map((match) => match[1] ?? '').sort()
}

/** What Berth may leave in the host's own namespace. */
async function leftovers(): Promise<string> {
  const commands = [
    ['nft', 'list', 'ruleset'],
    ['ip', '-brief', 'link', 'show'],
    ['ip', 'route', 'show'],
    ['ip', 'neigh', 'show', 'proxy'],
  ]
  const outputs = await Promise.all(commands.map(async (argv) => (await runCommand(argv)).stdout))
  return [...outputs, await readdir('/run/netns'), await readdir('/run/berth', { recursive: true })].join('\n')
}
