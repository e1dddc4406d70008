import type { Peer } from '@berth/agent/network/testing/peer.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import type { Schemas } from '@berth/sdk/client.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DevProcess, type InstanceDocument } from './dev-process.ts'
import { closeWorld, openWorld, world, worldInterface } from './network/world.ts'

type Rule = Schemas['SecurityGroup']['spec']['rules'][number]

/**
 * Ports of each guest: those that tell its name, and one that says again what it hears. The rules below let in the first
 * three from one group, and one from everywhere.
 */
const ports = { name: 7000, echo: 7001, beyond: 7002, everywhere: 7100 } as const

const serve = `#!/bin/sh
for port in ${ports.name} ${ports.beyond} ${ports.everywhere}; do setsid nc -ll -p $port -e hostname & done
setsid nc -ll -p ${ports.echo} -e cat &
`

const allIn = { cidr: '0.0.0.0/0' }
const egress: Rule = { direction: 'egress', protocol: 'any', remote: allIn, description: '' }
const tcp = (from: number, to: number, remote: Rule['remote']): Rule => ({
  ...{ direction: 'ingress', protocol: 'tcp', port_from: from, port_to: to },
  ...{ remote, description: '' },
})
const clientRules = [tcp(ports.name, ports.name, { cidr: '10.0.1.0/24' })]
const appRules = [
  tcp(ports.name, ports.echo, { security_group: 'sg-clients' }),
  tcp(ports.everywhere, ports.everywhere, allIn),
  { direction: 'ingress', protocol: 'icmp', remote: { cidr: '10.0.0.0/16' }, description: '' } satisfies Rule,
]

describe('packets of real machines', () => {
  let internet: Peer
  let dev: DevProcess
  /** By their names; `twin-a` and `twin-b` are called `twin`, and have no groups but the default one. */
  const guests: Record<string, InstanceDocument> = {}

  beforeAll(async () => {
    await runCommand(['mount', '-t', 'sysfs', 'sysfs', '/sys'])
    internet = await openWorld()
    await internet.listen('tcp', 80)
    dev = await DevProcess.open({
      flags: ['--public-interface', worldInterface, '--public-pool', 'world=198.51.100.64/27'],
    })
    await makeResources()
    const near = { subnet_id: 'subnet-def456' } // gives each a public address
    const far = { subnet_id: 'subnet-far' }
    const wanted: [key: string, name: string, spec: Partial<Schemas['InstanceCreate']['spec']>][] = [
      ['app', 'app', { ...near, security_groups: ['sg-app'] }],
      ['client', 'client', { ...far, security_groups: ['sg-clients'] }],
      ['twin-a', 'twin', near],
      ['twin-b', 'twin', far],
      ['stranger', 'stranger', { vpc_id: 'vpc-b', subnet_id: 'subnet-b' }],
    ]
    const ids: string[] = []
    const user_data = Buffer.from(serve).toString('base64')
    for (const [, name, spec] of wanted) ids.push(await dev.create({ ...spec, user_data }, name))
    for (const [index, [key]] of wanted.entries()) guests[key] = await dev.reach(`${ids[index]}`, 'ready')
  })

  afterAll(async () => {
    await dev.down()
    await closeWorld(internet)
    await runCommand(['umount', '/sys'])
  })

  async function makeResources(): Promise<void> {
    const post = async (path: string, body: object) => {
      const headers = { 'content-type': 'application/json' }
      const response = await fetch(`${dev.url}/v1/${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
      expect(response.status, await response.text()).toBe(201)
    }
    await post('vpcs', { id: 'vpc-b', spec: { cidr: '10.0.0.0/16' } })
    await post('subnets', { id: 'subnet-b', spec: { vpc_id: 'vpc-b', cidr: '10.0.1.0/24' } })
    await post('subnets', { id: 'subnet-far', spec: { vpc_id: 'vpc-abc123', cidr: '10.0.2.0/24' } })
    await post('security-groups', { id: 'sg-clients', spec: { rules: [...clientRules, egress] } })
    await post('security-groups', { id: 'sg-app', spec: { rules: [...appRules, egress] } })
  }

  async function setRules(id: string, rules: readonly Rule[]): Promise<void> {
    const { error } = await dev.client.PATCH('/v1/security-groups/{id}', {
      params: { path: { id } },
      body: { spec: { rules: [...rules] } },
    })
    expect(error).toBeUndefined()
  }

  async function setGroups(key: string, ids: readonly string[]): Promise<void> {
    const { error } = await dev.client.PATCH('/v1/instances/{id}', {
      params: { path: { id: guest(key).id } },
      body: { spec: { security_groups: [...ids] } },
    })
    expect(error).toBeUndefined()
    await dev.inForce(guest(key).id)
  }

  const guest = (key: string) => guests[key] ?? expect.fail(`there is no guest ${key}`)
  const ip = (key: string) => guest(key).status.private_ip
  const publicIp = (key: string) => guest(key).status.public_ip

  /** What each of these lines of shell prints in a guest; they run at once. */
  async function inGuest(key: string, ...lines: string[]): Promise<string[]> {
    const begin = lines.map((line, n) => `(${line}) >/tmp/said.${n} 2>&1 &`)
    const tell = lines.map((_line, n) => `cat /tmp/said.${n}; echo; echo ====`)
    const said = await dev.ssh(guest(key).id, [...begin, 'wait', ...tell].join('\n'))
    return said
      .split('====')
      .slice(0, lines.length)
      .map((each) => each.trim())
  }

  /** What the other end says first. */
  const hear = (address: string, port: number) => `nc -w 4 ${address} ${port} </dev/null`
  const ping = (address: string, options = '') =>
    `ping -q -c 1 -w 4 ${options} ${address} >/dev/null && echo pong || echo none`
  const timedOut = expect.stringContaining('timed out')

  test('the default group lets its members reach each other, also in another subnet, and out; nobody else in', async () => {
    const reached = await inGuest(
      'twin-a',
      hear(ip('twin-b'), ports.name),
      ping(ip('twin-b')),
      ping(world.router),
      hear(ip('app'), ports.name),
      ping(ip('app')),
    )
    expect(reached).toEqual(['twin', 'pong', 'pong', timedOut, 'pong'])
    expect(await inGuest('client', hear(ip('twin-a'), ports.name), ping(ip('twin-b')))).toEqual([timedOut, 'none'])
    expect(await internet.fails('tcp', publicIp('twin-a'), ports.name)).toBe('timeout')
  })

  test('a rule with a range of ports and a group as its remote lets in these, and no other', async () => {
    const said = await inGuest(
      'client',
      hear(ip('app'), ports.name),
      `echo again | nc -w 4 ${ip('app')} ${ports.echo}`,
      hear(ip('app'), ports.beyond),
    )
    expect(said).toEqual(['app', 'again', timedOut])
  })

  test('two VPCs may have one address, and neither sees the other', async () => {
    expect(ip('stranger')).toBe(ip('app'))
    const [own, ...others] = await inGuest(
      'stranger',
      hear(ip('app'), ports.name),
      hear(ip('twin-b'), ports.name),
      ping(ip('client')),
    )
    expect(own).toBe('stranger')
    expect(others).toEqual([expect.stringMatching(/timed out|unreachable|No route/), 'none'])
  })

  test('other groups of a guest act while it runs', async () => {
    const groups = guest('twin-b').spec.security_groups
    await setGroups('twin-b', ['sg-app'])
    expect(await inGuest('client', hear(ip('twin-b'), ports.name))).toEqual(['twin'])
    expect(await inGuest('twin-a', hear(ip('twin-b'), ports.name))).toEqual([timedOut])
    await setGroups('twin-b', groups)
    expect(await inGuest('client', hear(ip('twin-b'), ports.name))).toEqual([timedOut])
    expect(await inGuest('twin-a', hear(ip('twin-b'), ports.name))).toEqual(['twin'])
  })

  test('without an egress rule a guest answers, but opens nothing', async () => {
    await setRules('sg-clients', clientRules)
    expect(await inGuest('app', hear(ip('client'), ports.name))).toEqual(['client'])
    await expect.poll(() => inGuest('client', ping(ip('app'))), { timeout: 30_000 }).toEqual(['none'])
    const said = await inGuest('client', hear(ip('app'), ports.name), ping(ip('app')), hear(world.router, 80))
    expect(said).toEqual([timedOut, 'none', timedOut])
    await setRules('sg-clients', [...clientRules, egress])
    await expect.poll(() => inGuest('client', hear(ip('app'), ports.name)), { timeout: 30_000 }).toEqual(['app'])
  })

  test('a rule that is taken away cuts what is open by it, and leaves what is open by others', async () => {
    const flow = (name: string, address: string, port: number) =>
      `setsid sh -c '(while sleep 0.2; do echo x; done) | nc ${address} ${port} >/tmp/${name}' >/dev/null 2>&1 &`
    await dev.ssh(guest('client').id, flow('cut', ip('app'), ports.echo))
    await dev.ssh(guest('twin-a').id, flow('kept', ip('twin-b'), ports.echo))
    const lines = async (key: string, name: string) => Number((await inGuest(key, `wc -l </tmp/${name}`))[0])
    await expect.poll(() => lines('client', 'cut'), { timeout: 20_000 }).toBeGreaterThan(5)
    await setRules('sg-app', [...appRules.slice(1), egress])
    await expect.poll(() => inGuest('client', hear(ip('app'), ports.name)), { timeout: 30_000 }).toEqual([timedOut])
    const [atOnce, before] = [await lines('client', 'cut'), await lines('twin-a', 'kept')]
    await expect.poll(() => lines('twin-a', 'kept'), { timeout: 20_000 }).toBeGreaterThan(before + 10) // two seconds
    expect(await lines('client', 'cut')).toBe(atOnce)
    await setRules('sg-app', [...appRules, egress])
    await expect.poll(() => inGuest('client', hear(ip('app'), ports.name)), { timeout: 30_000 }).toEqual(['app'])
  })

  test('a guest goes out as the host, or as its public address', async () => {
    const ask = `echo | nc -w 4 ${world.router} 80`
    expect(await inGuest('client', ask)).toEqual([world.host])
    expect(publicIp('client')).toBe('')
    expect(await inGuest('app', ask)).toEqual([publicIp('app')])
  })

  test('a public address leads to its guest from the world, from others and from itself, where a rule lets it', async () => {
    expect(await internet.reaches('tcp', publicIp('app'), ports.everywhere)).toBe('app')
    expect(await internet.fails('tcp', publicIp('app'), ports.name)).toBe('timeout')
    for (const key of ['client', 'stranger', 'app']) {
      expect([key, ...(await inGuest(key, hear(publicIp('app'), ports.everywhere)))]).toEqual([key, 'app'])
    }
  })

  test('names are found in their VPC, several guests of one name are all found, and nobody elsewhere', async () => {
    const addresses = (said: string | undefined) =>
      [...(said ?? '').matchAll(/^Address(?: \d+)?: (\d+\.\d+\.\d+\.\d+)$/gm)].map(([, address]) => address).sort()
    const look = ['nslookup -type=a twin.vpc.internal', 'nslookup -type=a app.vpc.internal']
    const [twins, app] = await inGuest('client', ...look)
    expect(addresses(twins)).toEqual([ip('twin-a'), ip('twin-b')].sort())
    expect(addresses(app)).toEqual([ip('app')])
    const [foreign, own] = await inGuest('stranger', look[0] ?? '', 'ping -c 1 -w 4 stranger.vpc.internal | head -n 1')
    expect(foreign).toContain('NXDOMAIN')
    expect(own).toContain(`(${ip('stranger')})`)
  })

  test('a lease is renewed', async () => {
    const until = (times: number) =>
      `for n in $(seq 30); do [ "$(grep -c obtained /tmp/udhcpc)" -ge ${times} ] && break; sleep 1; done`
    const [said] = await inGuest(
      'app',
      `udhcpc -f -i eth0 -s /bin/true -p /tmp/udhcpc.pid >/tmp/udhcpc 2>&1 &
       ${until(1)}
       kill -USR1 $(cat /tmp/udhcpc.pid)
       ${until(2)}
       kill $(cat /tmp/udhcpc.pid)
       cat /tmp/udhcpc`,
    )
    const obtained = `lease of ${ip('app')} obtained from 10.0.1.1, lease time 3600`
    expect(said?.split('\n').filter((line) => line.includes(obtained))).toHaveLength(2)
    expect(said).toMatch(/sending renew/)
  })

  test("a guest with another's address, another MAC, or an ARP answer that is not its own reaches nobody by it", async () => {
    const [address] = await inGuest(
      'twin-a',
      `ip addr add ${ip('client')}/32 dev eth0
       ${ping(ip('app'), `-I ${ip('client')}`)}
       ip addr del ${ip('client')}/32 dev eth0
       ${ping(ip('app'))}`,
    )
    expect(address).toBe('none\npong')
    const [mac] = await inGuest(
      'twin-a',
      `own=$(cat /sys/class/net/eth0/address)
       ip link set eth0 address 06:00:00:00:00:99
       ${ping(ip('app'))}
       ip link set eth0 address $own
       ${ping(ip('app'))}`,
    )
    expect(mac).toBe('none\npong')
    await inGuest('twin-a', `for n in 1 2 3; do arping -c 1 -U -I eth0 -s ${ip('app')} ${ip('app')}; done`)
    expect(await inGuest('client', hear(ip('app'), ports.name))).toEqual(['app'])
  })

  test('large packets and long answers get through, and the MTU is that of the network', async () => {
    const said = await inGuest(
      'client',
      'cat /sys/class/net/eth0/mtu',
      ping(ip('app'), '-s 4000'),
      `head -c 3000000 /dev/zero | nc -w 4 ${ip('app')} ${ports.echo} | wc -c`,
    )
    expect(said).toEqual(['1450', 'pong', '3000000'])
  })

  test('nothing is left when they are gone', async () => {
    for (const { id } of Object.values(guests)) await dev.delete(id)
    for (const { id } of Object.values(guests)) await dev.reach(id, 'terminated')
    const orphans = async () => {
      const { data } = await dev.client.GET('/v1/orphans')
      return data?.items
    }
    await expect.poll(orphans, { timeout: 30_000 }).toEqual([])
    for (const argv of [
      ['ip', 'neigh', 'show', 'proxy'],
      ['nft', 'list', 'ruleset'],
    ]) {
      expect((await runCommand(argv)).stdout).toBe('')
    }
    expect((await runCommand(['ip', 'route', 'show'])).stdout).not.toContain('198.51.100.6')
  })
})
