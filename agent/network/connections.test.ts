import type { PolicyGroup } from '@berth/contract/networks/policy.ts'
import { expect, test } from 'vitest'
import { testNic } from '../testing/nic.ts'
import { type Connections, connectionSides, forbiddenConnections, parseConnections } from './connections.ts'

/** As conntrack 1.4.7 prints them. */
const list = `tcp      6 431999 ESTABLISHED src=10.0.1.5 dst=10.0.1.6 sport=40001 dport=80 src=10.0.1.6 dst=10.0.1.5 sport=80 dport=40001 [ASSURED] mark=0 use=1
tcp      6 431999 ESTABLISHED src=10.0.1.5 dst=10.0.1.6 sport=40002 dport=80 src=10.0.1.6 dst=10.0.1.5 sport=80 dport=40002 [ASSURED] mark=0 use=1
udp      17 29 src=192.0.2.9 dst=203.0.113.7 sport=5353 dport=53 [UNREPLIED] src=10.0.1.5 dst=192.0.2.9 sport=53 dport=5353 mark=0 use=1
icmp     1 29 src=10.0.1.5 dst=192.0.2.9 type=8 code=0 id=7 src=192.0.2.9 dst=100.64.0.3 type=0 code=0 id=7 mark=0 use=2
unknown  47 599 src=10.0.1.5 dst=10.0.1.6 [UNREPLIED] src=10.0.1.6 dst=10.0.1.5 mark=0 use=1
something else
`
const [tcp, udp, icmp, gre]: Connections[] = parseConnections(list)

test('connections are read as they were sent, with whom they reached; those that differ in their source port are one', () => {
  expect(parseConnections(list)).toEqual([
    { protocol: 'tcp', source: '10.0.1.5', destination: '10.0.1.6', receiver: '10.0.1.6', port: 80 },
    { protocol: 'udp', source: '192.0.2.9', destination: '203.0.113.7', receiver: '10.0.1.5', port: 53 },
    { protocol: 'icmp', source: '10.0.1.5', destination: '192.0.2.9', receiver: '192.0.2.9', port: null },
    { protocol: '47', source: '10.0.1.5', destination: '10.0.1.6', receiver: '10.0.1.6', port: null },
  ])
  expect(parseConnections('')).toEqual([])
})

test('addresses are found on the side that they are on', () => {
  const [, udpLine = ''] = list.split('\n').slice(1)
  expect(connectionSides(udpLine)).toEqual(
    new Map([
      ['--orig-src', new Set(['192.0.2.9'])],
      ['--orig-dst', new Set(['203.0.113.7'])],
      ['--reply-src', new Set(['10.0.1.5'])],
      ['--reply-dst', new Set(['192.0.2.9'])],
    ]),
  )
  expect(connectionSides(list).get('--reply-src')).toEqual(new Set(['10.0.1.6', '10.0.1.5', '192.0.2.9']))
})

const nics = [testNic(1), testNic(2, { security_groups: ['sg-db'] })]
const anywhere = { cidr: '0.0.0.0/0' }
const web: PolicyGroup = {
  id: 'sg-web',
  rules: [
    { direction: 'egress', protocol: 'any', ports: null, remote: anywhere },
    { direction: 'ingress', protocol: 'udp', ports: { from: 53, to: 53 }, remote: { cidr: '192.0.2.0/24' } },
  ],
}
const db = (port: number): PolicyGroup => ({
  id: 'sg-db',
  rules: [
    {
      direction: 'ingress',
      protocol: 'tcp',
      ports: { from: port, to: port },
      remote: { security_group: 'sg-web' },
    },
  ],
})

test('what the rules of both ends still allow stays', () => {
  const forbidden = forbiddenConnections({ cidr: '', nics, groups: [web, db(80)] }, parseConnections(list))
  expect(forbidden).toEqual([gre])
})

test('what a rule of one end let in or out before goes', () => {
  const all = parseConnections(list)
  expect(forbiddenConnections({ cidr: '', nics, groups: [web, db(81)] }, all)).toEqual([tcp, gre])
  expect(forbiddenConnections({ cidr: '', nics, groups: [{ ...web, rules: [] }, db(80)] }, all)).toEqual(all)
  expect(
    forbiddenConnections(
      { cidr: '', nics: [], groups: [] },
      [udp, icmp].flatMap((each) => each ?? []),
    ),
  ).toEqual([])
})
