import type { DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import { expect, test } from 'vitest'
import { testNic } from '../../testing/nic.ts'
import { parseListing } from '../ruleset/listing.ts'
import { type SeenLink, wantedSettings } from './observation.ts'
import { planRepairs, type SeenVpc, type WantedVpc } from './repairs.ts'

const network: DesiredNetwork = { vpc_id: 'vpc-abc123', cidr: '10.0.0.0/16', subnets: [] }
const nics = [testNic(1), testNic(2, { bandwidth_mbps: 0 })]
const [{ tap }] = nics as [(typeof nics)[0]]

/** What `nft --json list ruleset` prints of a table with a set, a dynamic set, a map and a chain. */
function listing(changes: { elements?: string[]; rules?: string[]; policy?: string; more?: object[] } = {}) {
  const of = (object: object, handle: number) => ({ family: 'inet', table: 'vpc', handle, ...object })
  const { elements = ['10.0.1.5', '10.0.1.6'], rules = ['accept', 'drop'], policy = 'drop', more = [] } = changes
  return parseListing(
    JSON.stringify({
      nftables: [
        { metainfo: { version: '1.0.6' } },
        { table: { family: 'inet', name: 'vpc', handle: 1 } },
        { table: { family: 'ip', name: 'other', handle: 2 } },
        { set: of({ name: 'sgm_a', type: 'ipv4_addr', elem: elements }, 3) },
        { set: of({ name: 'opened', type: 'ipv4_addr', size: 65535, elem: rules }, 4) },
        { chain: of({ name: 'input', policy }, 5) },
        ...rules.map((verdict, i) => ({ rule: of({ chain: 'input', expr: [{ [verdict]: null }] }, 6 + i) })),
        ...more,
      ],
    }),
    'vpc',
  )
}

const wanted: WantedVpc = { network, nics, rules: listing() }

/** Everything as it should be, but for the changes. */
function seen(changes: Partial<SeenVpc> = {}): SeenVpc {
  const link = { up: true, open: true, mtu: 1450, mac: '02:00:00:00:00:01' }
  return {
    links: new Map<string, SeenLink>([
      ['lo', { ...link, addresses: ['127.0.0.1/8', '169.254.169.254/32'] }],
      ['up0', { ...link, addresses: ['100.64.0.3/31'] }],
      ...nics.map((nic) => [nic.tap, { ...link, addresses: ['10.0.1.1/32'] }] as const),
    ]),
    routes: [
      { type: 'unicast', dst: 'default', dev: 'up0', gateway: '100.64.0.2' },
      { type: 'unreachable', dst: '10.0.0.0/16', dev: '', gateway: '' },
      ...nics.map((nic) => ({ type: 'unicast', dst: nic.ip, dev: nic.tap, gateway: '' })),
    ],
    neighbours: new Map(nics.map((nic) => [`${nic.tap} ${nic.ip}`, nic.mac])),
    rates: new Map([[tap, 125_000_000]]),
    settings: new Map(
      wantedSettings(nics.map((nic) => nic.tap)).map((setting) => setting.split('=') as [string, string]),
    ),
    rules: listing(),
    uplink: { name: 'vuabc', outsideAddress: '100.64.0.2', insideAddress: '100.64.0.3' },
    dnsmasq: [],
    ...changes,
  }
}

function without<T>(map: ReadonlyMap<string, T>, name: string): Map<string, T> {
  return new Map([...map].filter(([key]) => key !== name))
}

const plan = (changes: Partial<SeenVpc>) =>
  planRepairs(wanted, seen(changes)).map(({ object, remedy, detail }) => `${object} by ${remedy}: ${detail}`)

test('nothing is done where everything is as it should be, in whatever order the kernel lists it', () => {
  expect(plan({})).toEqual([])
  const turned = {
    ...seen(),
    routes: seen().routes.toReversed(),
    rules: listing({ elements: ['10.0.1.6', '10.0.1.5'] }),
  }
  expect(plan(turned)).toEqual([])
})

test('what lives with something that is missing is not told of besides', () => {
  const { links, routes } = seen()
  expect(
    plan({ links: without(links, tap), settings: without(seen().settings, `net.ipv4.conf.${tap}.proxy_arp`) }),
  ).toEqual([`tap by taps: ${tap} is missing`])
  expect(plan({ uplink: null, routes: routes.slice(1) })).toEqual([
    "uplink by namespace: the host's end is missing, down or without its address",
  ])
  expect(plan({ uplink: null, links: without(links, 'up0'), routes: routes.slice(1) })).toEqual([
    'uplink by uplink: up0 is missing',
  ])
})

test('each object is told of by what it has in place of what it should have', () => {
  const base = seen()
  const changed = { ...base.links.get(tap), mtu: 1500, mac: '02:00:00:00:00:09', addresses: ['10.0.1.2/32'] }
  expect(plan({ links: new Map([...base.links, [tap, changed as never]]) })).toEqual([
    `tap by taps: ${tap} has the MTU 1500`,
    `tap by taps: ${tap} has the MAC 02:00:00:00:00:09`,
    `tap by taps: ${tap} has not 10.0.1.1`,
  ])
  expect(plan({ settings: new Map([...base.settings, ['net.ipv4.ip_forward', '0']]) })).toEqual([
    'setting by namespace: net.ipv4.ip_forward is 0',
  ])
  expect(plan({ settings: new Map([...base.settings, [`net.ipv4.neigh.${tap}.proxy_delay`, '80']]) })).toEqual([
    `setting by taps: net.ipv4.neigh.${tap}.proxy_delay is 80`,
  ])
  expect(plan({ rates: new Map([[`${nics[1]?.tap}`, 1000]]) })).toEqual(
    nics.map((nic) => `shaping by taps: ${nic.tap} has another bandwidth`),
  )
  expect(plan({ neighbours: new Map() })).toHaveLength(2)
  expect(plan({ routes: base.routes.map((route) => ({ ...route, dev: 'vtelsewhere' })) })).toEqual(
    nics.map((nic) => `route by taps: ${nic.ip} by ${nic.tap} is missing`),
  )
  expect(plan({ dnsmasq: ['it does not run'] })).toEqual(['dnsmasq by dnsmasq: it does not run'])
})

test('missing rules and elements are loaded again; what is of another kind or not ours is cleared first', () => {
  const rules = (changes: Parameters<typeof listing>[0]) => plan({ rules: listing(changes) })
  expect(rules({ rules: ['drop', 'accept'] })).toEqual(['ruleset by rules: the rules of inet vpc input are others'])
  expect(rules({ rules: [] })).toHaveLength(1)
  expect(rules({ elements: ['10.0.1.5', '10.0.1.9'] })).toEqual([
    'ruleset by rules: element inet vpc sgm_a "10.0.1.6" is missing, and 1 more',
  ])
  expect(rules({ policy: 'accept' })).toEqual(['ruleset by rules_anew: chain inet vpc input is another'])
  const mine = { chain: { family: 'inet', table: 'vpc', name: 'mine', handle: 99 } }
  expect(rules({ more: [mine] })).toEqual(['ruleset by rules_anew: chain inet vpc mine is not ours'])
})

test('what packets put into a dynamic set does not count', () => {
  const { nftables } = {
    nftables: [{ set: { family: 'inet', table: 'vpc', name: 'opened', size: 9, elem: ['1.2.3.4'] } }],
  }
  expect(parseListing(JSON.stringify({ nftables }), 'vpc').elements).toEqual(new Set())
})
