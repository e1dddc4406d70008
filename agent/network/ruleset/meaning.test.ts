import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Desired } from '@berth/contract/hosts/agent-protocol.ts'
import { PolicyGroup, type PolicyRule } from '@berth/contract/networks/policy.ts'
import fc from 'fast-check'
import Value from 'typebox/value'
import { expect, test } from 'vitest'
import { desiredInstance } from '../../testing/desired-instance.ts'
import { testNic } from '../../testing/nic.ts'
import { type Outcome, type Packet, RulesetEvaluator } from '../../testing/ruleset-evaluator.ts'
import { forbiddenConnections } from '../connections.ts'
import type { Nic } from '../nic.ts'
import { compareListings, parseListing } from './listing.ts'
import { type Ruleset, type RulesetPlan, rulesetOf } from './ruleset.ts'
import { namesOf, renderChange, renderRuleset } from './text.ts'

const cidr = '10.0.0.0/16'
const groupIds = ['sg-a', 'sg-b', 'sg-c', 'sg-unknown']
const outside = ['192.0.2.1', '192.0.2.77', '203.0.113.9', '10.1.0.4']
const ports = [0, 1, 67, 68, 80, 81, 443, 65_534, 65_535]
const publicAddresses = ['198.51.100.1', '198.51.100.2', '198.51.100.3', '198.51.100.4']

const range = fc.tuple(fc.constantFrom(...ports), fc.constantFrom(...ports)).map(([a, b]) => ({
  from: Math.min(a, b),
  to: Math.max(a, b),
}))

const remote = fc.oneof(
  fc
    .constantFrom('0.0.0.0/0', '10.0.0.0/16', '10.0.1.4/31', '10.0.1.6/32', '192.0.2.0/26', '128.0.0.0/1')
    .map((cidr) => ({
      cidr,
    })),
  fc.constantFrom(...groupIds).map((id) => ({ security_group: id })),
)

const rule: fc.Arbitrary<PolicyRule> = fc
  .record({
    direction: fc.constantFrom('ingress' as const, 'egress' as const),
    protocol: fc.constantFrom('tcp' as const, 'udp' as const, 'icmp' as const, 'any' as const),
    ports: fc.option(range),
    remote,
  })
  .map((each) => (each.protocol === 'tcp' || each.protocol === 'udp' ? each : { ...each, ports: null }))

const plan: fc.Arbitrary<RulesetPlan> = fc
  .record({
    cards: fc.array(
      fc.record({
        security_groups: fc.uniqueArray(fc.constantFrom(...groupIds), { maxLength: 3 }),
        hasPublic: fc.boolean(),
        bandwidth_mbps: fc.constantFrom(0, 100, 1000),
      }),
      { minLength: 1, maxLength: 4 },
    ),
    rules: fc.array(fc.array(rule, { maxLength: 4 }), { minLength: 3, maxLength: 3 }),
  })
  .map(({ cards, rules }) => ({
    cidr,
    nics: cards.map(({ hasPublic, ...card }, index) =>
      testNic(index, { ...card, public_ip: hasPublic ? `${publicAddresses[index]}` : '' }),
    ),
    groups: rules.map((each, index) => ({ id: `${groupIds[index]}`, rules: each })),
  }))

const anyAddress = fc.constantFrom(
  '10.0.1.4',
  '10.0.1.5',
  '10.0.1.6',
  '10.0.1.7',
  '10.0.9.9',
  ...publicAddresses,
  ...outside,
)

/** Mostly honest packets: one that lies about its source is dropped before anything else is asked. */
function packetOf({ nics }: RulesetPlan): fc.Arbitrary<Packet> {
  const honest = fc.constantFrom(...nics).map((nic) => ({ iifname: nic.tap, etherSource: nic.mac, source: nic.ip }))
  const arriving = fc
    .constantFrom(...outside)
    .map((source) => ({ iifname: 'up0', etherSource: '02:00:00:00:00:99', source }))
  const lying = fc.record({
    iifname: fc.constantFrom('up0', 'vtunknown', ...nics.map(({ tap }) => tap)),
    etherSource: fc.constantFrom(...nics.map(({ mac }) => mac)),
    source: anyAddress,
  })
  return fc
    .tuple(
      fc.oneof({ weight: 6, arbitrary: honest }, { weight: 3, arbitrary: arriving }, { weight: 1, arbitrary: lying }),
      fc.record({
        destination: anyAddress,
        protocol: fc.constantFrom(6, 6, 17, 17, 1, 47),
        sourcePort: fc.constantFrom(67, 40_000),
        port: fc.constantFrom(...ports),
        track: fc.constantFrom('new', 'new', 'new', 'established', 'answer', 'invalid', 'related'),
        inner: fc.oneof(
          anyAddress,
          fc.constantFrom(...nics).map(({ ip }) => ip),
        ),
      }),
    )
    .map(([from, { track, inner, ...to }]) => ({
      ...from,
      ...to,
      // connection tracking calls nothing else related
      ...(track === 'related' ? { protocol: 1, inner } : {}),
      state: track === 'answer' ? 'established' : (track as Packet['state']),
      direction: track === 'answer' ? 'reply' : 'original',
    }))
}

/** What becomes of a packet, said as plainly as it can be. */
function meaning({ nics, groups }: RulesetPlan, packet: Packet): Outcome {
  const sender = nics.find((nic) => nic.tap === packet.iifname)
  if (sender === undefined && packet.iifname !== 'up0') return null
  if (sender !== undefined && (sender.ip !== packet.source || sender.mac !== packet.etherSource)) return null
  if (sender === undefined && packet.source.startsWith('10.0.')) return null
  // an error of a packet that was sent to somebody else
  if (sender !== undefined && packet.inner !== undefined && packet.inner !== sender.ip) return null
  const named = nics.find((nic) => nic.public_ip === packet.destination)
  const destination = named?.ip ?? packet.destination
  const receiver = nics.find((nic) => nic.ip === destination)
  if (packet.state === 'invalid') return null
  const answers = packet.state === 'related' || (packet.state === 'established' && packet.direction === 'reply')
  if (!answers) {
    if (receiver === undefined && sender === undefined) return null // neither from nor to an instance
    if (packet.protocol === 17 && packet.sourcePort === 67 && packet.port === 68) return null
    const allows = (nic: Nic | undefined, direction: string, other: string) =>
      nic === undefined ||
      groups.some(
        (group) =>
          nic.security_groups.includes(group.id) &&
          group.rules.some((each) => each.direction === direction && speaksOf(each, packet, other, nics)),
      )
    if (!allows(sender, 'egress', destination) || !allows(receiver, 'ingress', packet.source)) return null
  }
  const leaves = receiver === undefined
  const own = nics.find((nic) => nic.ip === packet.source && nic.public_ip !== '')?.public_ip
  const source = leaves ? (own ?? 'masquerade') : named !== undefined ? (own ?? packet.source) : packet.source
  return { oifname: receiver?.tap ?? 'up0', source, destination }
}

function speaksOf(
  { protocol, ports, remote }: PolicyRule,
  packet: Packet,
  other: string,
  nics: readonly Nic[],
): boolean {
  const number = { tcp: 6, udp: 17, icmp: 1, any: packet.protocol }[protocol]
  if (number !== packet.protocol) return false
  if (ports !== null && (packet.port < ports.from || packet.port > ports.to)) return false
  if ('security_group' in remote) {
    return nics.some((nic) => nic.ip === other && nic.security_groups.includes(remote.security_group))
  }
  const [network = '', prefix = ''] = remote.cidr.split('/')
  return (
    Math.floor(number32(network) / 2 ** (32 - Number(prefix))) ===
    Math.floor(number32(other) / 2 ** (32 - Number(prefix)))
  )
}

const number32 = (address: string) => address.split('.').reduce((sum, octet) => sum * 256 + Number(octet), 0)

const routeOf =
  ({ nics }: RulesetPlan) =>
  (address: string) =>
    nics.find(({ ip }) => ip === address)?.tap ?? 'up0'

test('what the ruleset does with a packet is what the groups say', () => {
  const seen = { passed: 0, dropped: 0 }
  const property = fc.property(
    plan.chain((plan) => fc.record({ plan: fc.constant(plan), packets: fc.array(packetOf(plan), { minLength: 8 }) })),
    ({ plan, packets }) => {
      const evaluator = new RulesetEvaluator()
      evaluator.load(renderRuleset(rulesetOf(plan)))
      for (const packet of packets) {
        const expected = meaning(plan, packet)
        expect(evaluator.forward(packet, routeOf(plan)), JSON.stringify(packet)).toEqual(expected)
        if (expected === null) seen.dropped++
        else seen.passed++
      }
    },
  )
  fc.assert(property, { numRuns: 500 })
  expect(Math.min(seen.passed, seen.dropped), 'both are common').toBeGreaterThan(500)
})

test('what the kernel is told to forget is what the ruleset would not let be opened', () => {
  const property = fc.property(
    plan.chain((plan) => fc.record({ plan: fc.constant(plan), packets: fc.array(packetOf(plan), { minLength: 8 }) })),
    ({ plan, packets }) => {
      const evaluator = new RulesetEvaluator()
      evaluator.load(renderRuleset(rulesetOf(plan)))
      for (const each of packets) {
        const { inner: _, ...plain } = each
        const packet: Packet = { ...plain, sourcePort: 40_000, state: 'new', direction: 'original' }
        const protocol = ({ 1: 'icmp', 6: 'tcp', 17: 'udp' } as const)[packet.protocol]
        const { source, destination } = packet
        const receiver = plan.nics.find((nic) => nic.public_ip === destination)?.ip ?? destination
        const sender = plan.nics.find((nic) => nic.ip === source)
        const honest = sender?.tap === packet.iifname && sender.mac === packet.etherSource
        const arrives =
          packet.iifname === 'up0' && !source.startsWith('10.0.') && plan.nics.some(({ ip }) => ip === receiver)
        if (protocol === undefined || !(honest || arrives)) continue
        const port = protocol === 'icmp' ? null : packet.port
        const forgotten = forbiddenConnections(plan, [{ protocol, source, destination, receiver, port }])
        expect(forgotten.length === 0).toBe(evaluator.forward(packet, routeOf(plan)) !== null)
      }
    },
  )
  fc.assert(property, { numRuns: 300 })
})

test.each([
  ['whole', (before: Ruleset, wanted: Ruleset) => renderRuleset(wanted, namesOf(before))],
  ['by what differs', renderChange],
])('a ruleset that is loaded %s over another leaves nothing of it', (_how, render) => {
  const property = fc.property(fc.array(plan, { minLength: 2, maxLength: 4 }), (plans) => {
    const evaluator = new RulesetEvaluator()
    plans.map(rulesetOf).forEach((wanted, index, all) => {
      const before = all[index - 1]
      evaluator.load(before === undefined ? renderRuleset(wanted) : render(before, wanted))
      const fresh = new RulesetEvaluator()
      fresh.load(renderRuleset(wanted))
      expect(evaluator.contents).toEqual(fresh.contents)
    })
  })
  fc.assert(property, { numRuns: 200 })
})

const nft = (...argv: string[]) => spawnSync('unshare', ['--net', 'sh', '-euc', ...argv], { encoding: 'utf8' })

test.skipIf(nft('nft list tables').status !== 0)('the kernel has the same by changes as by whole loads', () => {
  const directory = mkdtempSync(join(tmpdir(), 'berth-ruleset-'))
  const listing = (texts: readonly string[]) => {
    const files = texts.map((text, index) => {
      const file = join(directory, String(index))
      writeFileSync(file, text)
      return file
    })
    const script = 'for each; do nft -f "$each"; done; nft --json list ruleset'
    const { status, stdout, stderr } = nft(script, 'sh', ...files)
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    return parseListing(stdout, 'vpc')
  }
  const property = fc.property(fc.array(plan, { minLength: 2, maxLength: 4 }), (plans) => {
    const [first, ...others] = plans.map(rulesetOf)
    if (first === undefined) return
    const changes = others.map((wanted, index) => renderChange([first, ...others][index] ?? first, wanted))
    const last = others.at(-1) ?? first
    expect(compareListings(listing([renderRuleset(last)]), listing([renderRuleset(first), ...changes]))).toBeNull()
  })
  try {
    fc.assert(property, { numRuns: 25 })
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('the evaluator refuses what it does not know', () => {
  const text = renderRuleset(rulesetOf({ cidr, nics: [testNic(1)], groups: [] }))
  const load = (from: string, to: string) => () => {
    const evaluator = new RulesetEvaluator()
    evaluator.load(text.replace(from, to))
    const { tap, mac, ip } = testNic(1)
    const packet = { etherSource: mac, source: ip, destination: '192.0.2.1', protocol: 6, sourcePort: 1, port: 1 }
    evaluator.forward({ ...packet, iifname: tap, state: 'new', direction: 'original' }, () => 'up0')
  }
  expect(load('', '')).not.toThrow()
  expect(load('iifname vmap @vm_out', 'ip ttl 1 accept')).toThrow('ip ttl')
  expect(load('flush table arp vpc', 'destroy table arp vpc')).toThrow('destroy')
})

/** Strings that would be something else than a value in nft text, a file of dnsmasq or a batch of ip(8). */
const hostile = fc.oneof(
  fc.string(),
  fc
    .tuple(
      fc.constantFrom('sg-web', '10.0.0.0/8', '10.0.0.4', '06:00:00:00:00:01', 'vpc-a', 'web'),
      fc.constantFrom(
        '\n',
        '"',
        ' ',
        ';',
        '{',
        '}',
        '#',
        '\\',
        ',',
        '$x',
        '@x',
        '\0',
        "'",
        '`',
        '/../x',
        '\u2028',
        '*',
      ),
      fc.constantFrom('', 'accept', 'x'),
    )
    .map((parts) => parts.join('')),
)

test.each([
  ['id of a group', (text: string) => Value.Check(PolicyGroup, { id: text, rules: [] })],
  ['CIDR of a rule', (text: string) => checksRule({ cidr: text })],
  ['group of a rule', (text: string) => checksRule({ security_group: text })],
  ['group of an instance', (text: string) => checksInstance({ security_groups: [text] })],
  ['address', (text: string) => checksInstance({ private_ip: text })],
  ['public address', (text: string) => checksInstance({ public_ip: text })],
  ['MAC', (text: string) => checksInstance({ mac: text })],
  ['host name', (text: string) => checksInstance({ hostname: text })],
  ['VPC of an instance', (text: string) => checksInstance({ vpc_id: text })],
  ['CIDR of a VPC', (text: string) => checksNetwork({ cidr: text })],
  [
    'CIDR of a subnet',
    (text: string) => checksNetwork({ subnets: [{ id: 'subnet-a', cidr: text, gateway: '10.0.1.1' }] }),
  ],
  ['gateway', (text: string) => checksNetwork({ subnets: [{ id: 'subnet-a', cidr: '10.0.1.0/24', gateway: text }] })],
])('no hostile text gets to a host as the %s', (_name, accepts) => {
  const property = fc.property(hostile, (text) => {
    if (accepts(text)) expect(text).toMatch(/^[A-Za-z0-9.:/-]*$/)
  })
  fc.assert(property, { numRuns: 2000 })
})

const desired: Desired = { revision: 1, instances: [], networks: [], security_groups: [], images: [] }

function checksRule(remote: PolicyRule['remote']): boolean {
  const rule = { direction: 'egress', protocol: 'any', ports: null, remote }
  return Value.Check(PolicyGroup, { id: 'sg-a', rules: [rule] })
}

function checksInstance(changes: object): boolean {
  return Value.Check(Desired, { ...desired, instances: [{ ...desiredInstance(), ...changes }] })
}

function checksNetwork(changes: object): boolean {
  return Value.Check(Desired, { ...desired, networks: [{ vpc_id: 'vpc-a', cidr, subnets: [], ...changes }] })
}

test('what is not hostile does get there', () => {
  expect([checksInstance({}), checksNetwork({}), checksRule({ cidr: '10.0.0.0/8' })]).toEqual([true, true, true])
})
