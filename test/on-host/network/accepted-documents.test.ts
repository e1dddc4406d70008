import { execFileSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { renderSeed, seedNetworkOf } from '@berth/agent/disk/seed.ts'
import { type Nic, nicOf } from '@berth/agent/network/nic.ts'
import { fastestHeld, type RulesetPlan, rulesetOf } from '@berth/agent/network/ruleset/ruleset.ts'
import { renderRuleset } from '@berth/agent/network/ruleset/text.ts'
import { renderDnsmasqConfig, updateGuests } from '@berth/agent/network/services/dnsmasq.ts'
import { renderShapingLine, renderTapLines } from '@berth/agent/network/taps.ts'
import { renderHostRuleset } from '@berth/agent/network/uplink/host-ruleset.ts'
import { Desired, type DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import { groupKey } from '@berth/contract/hosts/names.ts'
import fc from 'fast-check'
import Value from 'typebox/value'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { parse } from 'yaml'
import { type Stack, startStack } from '../../stack.ts'

/** What a caller may send for a network: mostly such that fit, and the same written in ways that programs read differently. */
const octet = fc.oneof(
  { weight: 8, arbitrary: fc.nat(255).map(String) },
  fc.constantFrom('0', '00', '010', '256', '0x0a', ''),
)
const written = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom('0.0.0.0/0', '128.0.0.0/1', '10.0.0.0/8', '192.0.2.7/32', '0.0.0.0/32') },
  fc
    .tuple(
      octet,
      octet,
      octet,
      octet,
      fc.constantFrom('/0', '/8', '/08', '/16', '/24', '/031', '/32', '/33', '', '/+8'),
    )
    .map(([a, b, c, d, end]) => `${a}.${b}.${c}.${d}${end}`),
  {
    weight: 6,
    arbitrary: fc
      .tuple(fc.nat(255), fc.constantFrom('.0.0.0/8', '.0.0.0/08', '.1.2.0/24', '.1.2.3/32', '.0.0.0/032'))
      .map((parts) => parts.join('')),
  },
)
const vpcNetwork = fc.oneof(
  fc.tuple(fc.nat(255), fc.integer({ min: 15, max: 17 })).map(([b, prefix]) => `10.${b}.0.0/${prefix}`),
  fc.constantFrom(
    '172.31.255.240/28',
    '192.168.0.0/016',
    '10.0.0.0/16',
    '010.0.0.0/16',
    '192.168.255.0/24',
    '172.16.0.0/20',
  ),
)
const port = fc.oneof(fc.nat(65_535), fc.constantFrom(0, -0, 1, 65_535, 65_536, -1, 1.5, 1e3))
const text = fc.oneof(fc.string(), fc.constantFrom('"; accept', '} drop {', '\n', 'ü', '$(x)'))
const groups = ['sg-0', 'sg-1', `sg-${'x'.repeat(58)}`, 'sg-0-0', 'sg-unknown']
const remote = fc.oneof(
  { weight: 4, arbitrary: written.map((cidr) => ({ cidr })) },
  { weight: 1, arbitrary: fc.constantFrom(...groups).map((id) => ({ security_group: id })) },
)
const direction = fc.constantFrom('ingress', 'egress')
const description = text.map((each) => each.slice(0, 200))
const sensible = fc
  .tuple(fc.constantFrom('tcp', 'udp', 'icmp', 'any'), fc.option(fc.tuple(fc.nat(65_535), fc.nat(65_535))))
  .map(([protocol, ports]) => {
    if (ports === null || protocol === 'icmp' || protocol === 'any') return { protocol }
    return { protocol, port_from: Math.min(...ports), port_to: Math.max(...ports) }
  })
const senseless = fc.record(
  { protocol: fc.constantFrom('tcp', 'udp', 'icmp', 'any', 'TCP'), port_from: port, port_to: port },
  { requiredKeys: ['protocol'] },
)
const rule = fc
  .tuple(
    fc.record({ direction, remote, description }),
    fc.oneof({ weight: 4, arbitrary: sensible }, { weight: 1, arbitrary: senseless }),
  )
  .map(([about, what]) => ({ ...about, ...what }))
const name = fc.oneof(
  fc.stringMatching(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/),
  fc.constantFrom(
    'localhost',
    'ignore',
    '2d',
    '0',
    '123',
    `a${'-'.repeat(61)}b`,
    'x'.repeat(63),
    'x'.repeat(64),
    'a.b',
    'A',
    'a\n',
  ),
)
const labels = fc.dictionary(
  fc.stringMatching(/^[A-Za-z0-9._/-]{1,20}$/),
  text.map((each) => each.slice(0, 63)),
  { maxKeys: 3 },
)

/** Bandwidths that a type of instance may have. */
const bandwidths = [0, 1, 1000, 100_000, fastestHeld, fastestHeld + 1, 1_000_000]

let stack: Stack
beforeAll(async () => {
  stack = await startStack({ publicPools: [{ name: 'default', cidr: '203.0.113.0/24' }] })
})
afterAll(() => stack.close())

/** POST each; gives the documents that were accepted. Whatever is sent, nothing else comes back than that or a refusal. */
async function accepted<T extends { id: string }>(path: string, bodies: readonly object[]): Promise<T[]> {
  const documents: T[] = []
  for (const body of bodies) {
    const answer = await stack.api<T>('POST', path, body)
    expect([201, 409, 422], JSON.stringify(body)).toContain(answer.status)
    if (answer.status === 201) documents.push(answer.body)
  }
  return documents
}

/** What this host gets to hear once it holds so many instances. */
async function desiredOnHost(instances: number): Promise<Desired> {
  for (;;) {
    const { body } = await stack.agentApi<Desired>('GET', '/v1/agent/desired?since=0')
    if (body.instances.length >= instances) return body
  }
}

/** Load what the agent makes of a VPC in a network namespace of its own; gives what the kernel then lists of its rules. */
async function load(network: DesiredNetwork, plan: RulesetPlan, directory: string): Promise<string> {
  const addresses = plan.nics.map((nic) => nic.public_ip).filter((address) => address !== '')
  const host = { table: 'berth_abc123', uplinks: ['vu0'], publicAddresses: addresses, announced: false }
  await updateGuests(directory, plan.nics, plan.nics)
  const texts = {
    nft: renderRuleset(rulesetOf(plan)) + renderHostRuleset(host),
    ip: ['link set lo up', ...plan.nics.flatMap((nic) => renderTapLines(nic, false))].join('\n'),
    tc: plan.nics.map(renderShapingLine).join('\n'),
    dnsmasq: renderDnsmasqConfig(directory, network, ['192.0.2.53']),
  }
  for (const [file, each] of Object.entries(texts)) await writeFile(join(directory, file), `${each}\n`)
  const script = [
    'dnsmasq --test --conf-file=dnsmasq 2>/dev/null',
    ...['ip -batch ip', 'tc -batch tc', 'nft -f nft', 'nft --json list table inet vpc'],
  ]
  return execFileSync('unshare', ['--net', 'sh', '-euc', script.join('\n')], { cwd: directory, encoding: 'utf8' })
}

/** How many rules the kernel has in a chain. */
function countRules(listing: string, chain: string): number {
  const { nftables } = JSON.parse(listing) as { nftables: { rule?: { chain: string } }[] }
  return nftables.filter((entry) => entry.rule?.chain === chain).length
}

test('whatever the API accepts, the kernel takes, and no rule is missing', async () => {
  const seed = Number(process.env.BERTH_TEST_SEED ?? Date.now() % 2 ** 31)
  const sample = <T>(arbitrary: fc.Arbitrary<T>, count: number) => fc.sample(arbitrary, { seed, numRuns: count })
  console.info(`BERTH_TEST_SEED=${seed}`)
  const vpcs = await accepted<{ id: string; spec: { cidr: string } }>(
    '/v1/vpcs',
    sample(vpcNetwork, 12).map((cidr) => ({ spec: { cidr } })),
  )
  const subnets = await accepted(
    '/v1/subnets',
    vpcs.flatMap(({ id, spec: { cidr } }) =>
      [cidr, cidr.replace(/\/16$/, '/20'), cidr.replace(/\/\d+$/, '/028')].map((part) => ({
        spec: { vpc_id: id, cidr: part, auto_assign_public_ip: true },
      })),
    ),
  )
  for (const id of groups.slice(0, -1)) await accepted('/v1/security-groups', [{ id }])
  // one rule each, so that one that is refused takes no other with it
  const single = await accepted<{ id: string; spec: { rules: object[] } }>(
    '/v1/security-groups',
    sample(rule, 240).map((each) => ({ spec: { rules: [each] } })),
  )
  const rules = single.flatMap(({ spec }) => spec.rules)
  for (const [index, id] of groups.slice(0, -1).entries()) {
    const part = rules.filter((_, each) => each % 4 === index)
    expect((await stack.api('PATCH', `/v1/security-groups/${id}`, { spec: { rules: part } })).status).toBe(200)
  }
  const carried = sample(fc.uniqueArray(fc.constantFrom(...groups), { maxLength: 4 }), 60)
  const names = sample(name, 60)
  const attached = sample(labels, 60)
  const instances = await accepted(
    '/v1/instances',
    carried.map((security_groups, index) => ({
      metadata: { name: names[index], ...(index % 2 === 0 ? {} : { labels: attached[index] }) },
      spec: { type: 'micro', image: 'micro', subnet_id: subnets[index % subnets.length]?.id, security_groups },
    })),
  )
  // enough of each was accepted for the rest to say something
  expect([vpcs, subnets, rules, instances].map(({ length }) => length > 5)).toEqual([true, true, true, true])

  const desired = await desiredOnHost(instances.length)
  expect(Value.Check(Desired, desired)).toBe(true)
  const directory = await mkdtemp(join(tmpdir(), 'berth-accepted-'))
  try {
    for (const network of desired.networks) {
      const here = desired.instances.filter((instance) => instance.vpc_id === network.vpc_id)
      const nics = here.map((instance, index): Nic => {
        const { prefixLength, gateway } = seedNetworkOf(instance, network)
        const seedText = renderSeed(instance, { prefixLength, gateway }, { network: 'static' }, '')
        expect(parse(seedText['meta-data'])['local-hostname']).toBe(instance.hostname)
        const bandwidth_mbps = bandwidths[index % bandwidths.length] ?? 0
        return { ...nicOf('abc123', instance, gateway, 1_900_000_000 + index), bandwidth_mbps }
      })
      const plan = { cidr: network.cidr, nics, groups: desired.security_groups }
      const listing = await load(network, plan, directory)
      for (const id of new Set(nics.flatMap((nic) => nic.security_groups))) {
        const count = ['sgi', 'sgo'].reduce((sum, side) => sum + countRules(listing, `${side}_${groupKey(id)}`), 0)
        expect(count, id).toBe(desired.security_groups.find((group) => group.id === id)?.rules.length)
      }
    }
  } finally {
    await rm(directory, { recursive: true })
  }
})
