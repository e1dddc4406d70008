import { inNamespace } from '@berth/agent/network/namespace.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { hostTableName } from '@berth/contract/hosts/names.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Guest, group, NetworkHost, rule } from './network-host.ts'

const options = { signal: AbortSignal.timeout(240_000) }
const web = rule('ingress', 'tcp', 80)

/** Rules that a host cannot load: one that is known to be wrong, and one that only nft(8) says so of. */
const unloadable = [
  [
    'a prefix with a leading zero',
    rule('ingress', 'any', null, { cidr: '10.0.0.0/08' }),
    /^sg-bad is .*rule 1: its remote 10.0.0.0\/08/,
  ],
  [
    'a port beyond the last',
    rule('ingress', 'udp', [70_000, 70_000]),
    /^sg-bad is .*rule 1: it cannot be loaded: .*out of range/,
  ],
] as const

describe.each(unloadable)('a rule with %s', (_name, bad, message) => {
  let net: NetworkHost
  let vpc: string
  let other: Guest
  let carrier: Guest

  beforeAll(async () => {
    net = await NetworkHost.open()
    vpc = net.vpc('vpc-a')
    other = await net.guest(vpc, '10.0.1.5')
    carrier = await net.guest(vpc, '10.0.1.6', { security_groups: ['sg-bad', 'sg-out'] })
    await carrier.listen('tcp', 80, 81)
    await other.listen('tcp', 80)
  })
  afterAll(() => net.close())

  const fault = (guest: Guest) => net.networks.networkFault(guest.vpcId, guest.nic)?.message ?? null

  test('is left out and named; the others of its group, and those of other groups, come into force', async () => {
    let told = 0
    net.networks.onNetworkChange(() => told++)
    await net.setGroups(group('sg-bad', web, bad))
    expect(told).toBeGreaterThan(0)
    expect(fault(carrier)).toMatch(message)
    expect(fault(other)).toBeNull()
    expect(await other.reaches('tcp', carrier.nic.ip, 80)).toBe(other.nic.ip)
    expect(await other.fails('tcp', carrier.nic.ip, 81)).toBe('timeout')
    await net.setGroups(group('sg-bad', rule('ingress', 'tcp', 81), bad))
    expect(await other.reaches('tcp', carrier.nic.ip, 81)).toBe(other.nic.ip)
    expect(await other.fails('tcp', carrier.nic.ip, 80)).toBe('timeout')
  })

  test('keeps nobody from coming, changing or going', async () => {
    const late = await net.guest(vpc, '10.0.1.7', { security_groups: ['sg-bad', 'sg-out'] })
    expect(await late.reaches('tcp', other.nic.ip, 80)).toBe(late.nic.ip)
    await net.change(late, { security_groups: ['sg-open'] })
    expect(fault(late)).toBeNull()
    await net.remove(late)
  })

  test('is no damage to a look, which goes on to repair what is', async () => {
    const taps = new Set([other.nic.tap, carrier.nic.tap])
    expect((await net.networks.heal(taps, options)).repairs).toEqual([])
    await runCommand([...inNamespace(net.networks.namespaceOf(vpc)), 'nft', 'flush', 'chain', 'inet', 'vpc', 'input'])
    const { repairs } = await net.networks.heal(taps, options)
    expect(repairs.map(({ object }) => object)).toEqual(['ruleset'])
    expect((await net.networks.heal(taps, options)).repairs).toEqual([])
    expect(fault(carrier)).toMatch(message)
  })

  test('is over when it is mended', async () => {
    await net.setGroups(group('sg-bad', web))
    expect(fault(carrier)).toBeNull()
    expect(await other.reaches('tcp', carrier.nic.ip, 80)).toBe(other.nic.ip)
  })
})

describe('where nothing can be loaded at all', () => {
  let net: NetworkHost
  let vpc: string
  let staying: Guest
  let going: Guest

  beforeAll(async () => {
    net = await NetworkHost.open()
    vpc = net.vpc('vpc-a')
    staying = await net.guest(vpc, '10.0.1.5', { public_ip: '203.0.113.5' })
    going = await net.guest(vpc, '10.0.1.6', { public_ip: '203.0.113.6' })
    // a set of another type under a name of ours: every load over it is refused
    const spoil = (enter: readonly string[], table: string, set: string) =>
      runCommand([...enter, 'nft', '-f', '-'], {
        input: `delete table inet ${table}\ntable inet ${table} {\n  set ${set} { type inet_service; }\n}\n`,
      })
    await spoil(inNamespace(net.networks.namespaceOf(vpc)), 'vpc', 'bind')
    await spoil([], hostTableName('packet'), 'uplinks')
  })
  afterAll(() => net.close())

  test('a change of rules is not in force, and says so of the groups of each card', async () => {
    await net.setGroups(group('sg-new', web))
    await net.change(staying, { security_groups: ['sg-open', 'sg-new'] }).then(
      () => expect.unreachable('nothing can be loaded'),
      (error) => expect(String(error)).toContain('datatype mismatch'),
    )
    expect(net.networks.networkFault(vpc, staying.nic)?.message ?? null).toMatch(
      /^sg-open is not in force: it cannot be loaded: .*; sg-new is not in force: /,
    )
  })

  test('a card goes all the same, with its route, its names and its public address', async () => {
    const namespace = net.networks.namespaceOf(vpc)
    await net.remove(going)
    const links = (await runCommand(['ip', '-netns', namespace, '-br', 'link'])).stdout
    expect(links).not.toContain(going.nic.tap)
    expect(links).toContain(staying.nic.tap)
    const routes = (await runCommand(['ip', 'route'])).stdout
    expect(routes).not.toContain('203.0.113.6')
    expect(routes).toContain('203.0.113.5')
  })

  test('the next look puts it right', async () => {
    const { repairs } = await net.networks.heal(new Set([staying.nic.tap]), options)
    expect(repairs.map(({ object }) => object)).toEqual(expect.arrayContaining(['host_ruleset', 'ruleset']))
    expect(net.networks.networkFault(vpc, staying.nic)?.message ?? null).toBeNull()
    expect((await net.networks.heal(new Set([staying.nic.tap]), options)).repairs).toEqual([])
  })

  test('the last card goes with namespace and uplink', async () => {
    await net.remove(staying)
    expect((await runCommand(['ip', 'netns'])).stdout).not.toContain(net.networks.namespaceOf(vpc))
    expect((await runCommand(['ip', '-br', 'link'])).stdout).not.toMatch(/^vu/m)
  })
})
