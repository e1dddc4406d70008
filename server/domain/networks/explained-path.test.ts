import type { PolicyGroup } from '@berth/contract/networks/policy.ts'
import { expect, test } from 'vitest'
import { checkTraffic, type End, type InstanceEnd } from './explained-path.ts'

const anywhere = { cidr: '0.0.0.0/0' }
const web: PolicyGroup = {
  id: 'sg-web',
  rules: [
    { direction: 'ingress', protocol: 'tcp', ports: { from: 80, to: 80 }, remote: anywhere },
    { direction: 'egress', protocol: 'any', ports: null, remote: anywhere },
  ],
}
const database: PolicyGroup = {
  id: 'sg-db',
  rules: [
    { direction: 'ingress', protocol: 'tcp', ports: { from: 5432, to: 5432 }, remote: { security_group: 'sg-web' } },
    { direction: 'egress', protocol: 'tcp', ports: null, remote: { cidr: '192.0.2.0/24' } },
  ],
}
const vpc = { id: 'vpc-a', cidr: '10.0.0.0/16', gateways: ['10.0.1.1', '10.0.2.1'] }
const instance = (id: string, address: string, groups: PolicyGroup[], changes: Partial<InstanceEnd> = {}) => ({
  instance: { id, vpc, privateAddress: address, publicAddress: '', groups, ...changes },
  address,
})
const web1 = instance('web-1', '10.0.1.4', [web])
const db1 = instance('db-1', '10.0.2.4', [database])
const bare = instance('bare', '10.0.1.9', [])
const publicWeb = instance('web-2', '10.0.1.5', [web], { publicAddress: '203.0.113.5' })
const foreign = instance('far', '10.0.1.4', [web], { vpc: { ...vpc, id: 'vpc-b' } })
const foreignPublic = instance('far', '10.0.1.4', [web], {
  vpc: { ...vpc, id: 'vpc-b' },
  publicAddress: '203.0.113.9',
})
const outside = (address: string): End => ({ instance: null, address })
const tcp = (port: number) => ({ protocol: 'tcp', port }) as const
const icmp = { protocol: 'icmp', port: null } as const

test.each([
  ['by rules of both', web1, db1, tcp(5432), ['route same_vpc', 'egress rule_allows', 'ingress rule_allows']],
  ['another port', web1, db1, tcp(5433), ['route same_vpc', 'egress rule_allows', '!ingress no_rule_allows']],
  ['the way back', db1, web1, tcp(80), ['route same_vpc', '!egress no_rule_allows']],
  ['a receiver without groups', web1, bare, icmp, ['route same_vpc', 'egress rule_allows', '!ingress no_rule_allows']],
  ['a sender without groups', bare, web1, tcp(80), ['route same_vpc', '!egress no_rule_allows']],
  ['another VPC', web1, foreign, tcp(80), ['!route other_vpc']],
  [
    'another VPC by public address',
    web1,
    foreignPublic,
    tcp(80),
    ['route by_public_address', 'egress rule_allows', 'ingress rule_allows'],
  ],
  ['from outside', outside('198.51.100.1'), publicWeb, tcp(80), ['route by_public_address', 'ingress rule_allows']],
  [
    'from outside to a closed port',
    outside('198.51.100.1'),
    publicWeb,
    tcp(81),
    ['route by_public_address', '!ingress no_rule_allows'],
  ],
  ['from outside without public address', outside('198.51.100.1'), web1, tcp(80), ['!route no_public_address']],
  ['a forged source', outside('10.0.1.200'), publicWeb, tcp(80), ['!route address_of_the_vpc']],
  ['to the world', web1, outside('198.51.100.1'), tcp(443), ['route to_the_world', 'egress rule_allows']],
  ['to the world by CIDR', db1, outside('192.0.2.9'), tcp(443), ['route to_the_world', 'egress rule_allows']],
  ['to the world outside of it', db1, outside('192.0.3.9'), tcp(443), ['route to_the_world', '!egress no_rule_allows']],
  ['an address nobody has', web1, outside('10.0.7.7'), tcp(443), ['!route address_without_instance']],
  ['a transit address', web1, outside('100.64.0.2'), icmp, ['!route address_without_instance']],
  ['DNS of the gateway', bare, outside('10.0.2.1'), { protocol: 'udp', port: 53 }, ['service service_of_the_vpc']],
  ['metadata', bare, outside('169.254.169.254'), tcp(80), ['service service_of_the_vpc']],
  ['metadata at the gateway', bare, outside('10.0.1.1'), tcp(80), ['!service no_such_service']],
] as const)('%s', (_, from, to, traffic, expected) => {
  const checks = checkTraffic(from, to, traffic)
  expect(checks.map(({ at, passes, reason }) => `${passes ? '' : '!'}${at} ${reason}`)).toEqual(expected)
})

test('a check names the rule that allows, or the narrowest one that is missing', () => {
  expect(checkTraffic(web1, db1, tcp(5432)).at(-1)).toMatchObject({
    instance_id: 'db-1',
    security_group: 'sg-db',
    rule_index: 0,
    missing_rule: null,
    message: 'Rule 0 of sg-db lets tcp/5432 in from 10.0.1.4 (sg-web).',
  })
  expect(checkTraffic(web1, db1, tcp(22)).at(-1)?.missing_rule).toEqual({
    direction: 'ingress',
    protocol: 'tcp',
    port_from: 22,
    port_to: 22,
    remote: { security_group: 'sg-web' },
    description: '',
  })
  expect(checkTraffic(db1, outside('198.51.100.1'), icmp).at(-1)?.missing_rule).toEqual({
    direction: 'egress',
    protocol: 'icmp',
    remote: { cidr: '198.51.100.1/32' },
    description: '',
  })
  expect(checkTraffic(bare, web1, icmp).at(-1)?.message).toBe('bare carries no security group, so nothing passes.')
})
