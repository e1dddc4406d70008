import Type, { type Static } from 'typebox'
import { chosenIdPattern } from '../ids.ts'
import { oneOf, strict } from '../schema.ts'
import { holds, networkFault } from './cidr.ts'
import type { SecurityGroupRule } from './security-groups.ts'

/**
 * The plain meaning of security groups, shared by whoever enforces it (the host's ruleset) and whoever explains it (the
 * server). A packet that opens a connection passes when a rule of a group of its sender lets it out *and* a rule of a
 * group of its receiver lets it in; who is no instance of the VPC has no groups and is not asked. Answers pass with the
 * connection they belong to. What no rule allows is dropped, in both directions.
 */

const Port = Type.Integer({ minimum: 0, maximum: 65_535 })

/** A rule as hosts get it: without the words that people wrote about it. `ports` is null for all of them. */
export const PolicyRule = Type.Object(
  {
    direction: oneOf(['ingress', 'egress']),
    protocol: oneOf(['tcp', 'udp', 'icmp', 'any']),
    ports: Type.Union([Type.Object({ from: Port, to: Port }, strict), Type.Null()]),
    remote: Type.Union([
      Type.Object({ cidr: Type.String({ maxLength: 18, pattern: '^[0-9.]+/[0-9]+$' }) }, strict),
      Type.Object({ security_group: Type.String({ pattern: chosenIdPattern('sg') }) }, strict),
    ]),
  },
  strict,
)
export type PolicyRule = Static<typeof PolicyRule>

/** A security group as hosts get it. Its members are the instances that carry it, within one VPC. */
export const PolicyGroup = Type.Object(
  { id: Type.String({ pattern: chosenIdPattern('sg') }), rules: Type.Array(PolicyRule, { maxItems: 200 }) },
  strict,
)
export type PolicyGroup = Static<typeof PolicyGroup>

/** A caller's rule without its words; one port alone is a range of one. */
export function policyRule({ direction, protocol, port_from, port_to, remote }: SecurityGroupRule): PolicyRule {
  const from = port_from ?? port_to
  const to = port_to ?? port_from
  return { direction, protocol, ports: from === undefined || to === undefined ? null : { from, to }, remote }
}

/** A group as hosts get it, and as the server explains it. */
export function policyGroup({ id, rules }: { id: string; rules: readonly SecurityGroupRule[] }): PolicyGroup {
  return { id, rules: rules.map(policyRule) }
}

/** The packets a question is about; `port` is the destination's, null for what has none and for "any port". */
export interface Traffic {
  protocol: 'tcp' | 'udp' | 'icmp'
  port: number | null
}

/** The other end of a connection as a rule sees it: its address, and the groups it carries in the same VPC. */
export interface PolicyPeer {
  address: string
  groups: ReadonlySet<string>
}

/** Where a rule stands: `index` counts from 0 in the rules of the group. */
export interface RulePlace {
  group: string
  index: number
  rule: PolicyRule
}

/** The first rule of an instance's groups that lets such packets through in a direction, or null. */
export function allowingRule(
  groups: readonly PolicyGroup[],
  direction: PolicyRule['direction'],
  traffic: Traffic,
  peer: PolicyPeer,
): RulePlace | null {
  for (const group of groups) {
    const index = group.rules.findIndex((rule) => rule.direction === direction && ruleMatches(rule, traffic, peer))
    const rule = group.rules[index]
    if (rule !== undefined) return { group: group.id, index, rule }
  }
  return null
}

/**
 * What keeps a rule from being put in force, in words, or null. The server refuses such rules; one that came into its
 * database otherwise lets nothing pass, on hosts as in explanations.
 */
export function ruleFault({ protocol, ports, remote }: PolicyRule): string | null {
  const fault = 'cidr' in remote ? networkFault(remote.cidr) : null
  if ('cidr' in remote && fault !== null) return `its remote ${remote.cidr} ${fault}`
  if (ports === null) return null
  if (protocol !== 'tcp' && protocol !== 'udp') return `protocol ${protocol} has no ports`
  return ports.from > ports.to ? `its ports ${ports.from}-${ports.to} are no range` : null
}

/** Whether a rule speaks of such packets to or from such a peer, in whichever direction it is meant. */
export function ruleMatches(rule: PolicyRule, traffic: Traffic, peer: PolicyPeer): boolean {
  return protocolMatches(rule, traffic) && remoteMatches(rule.remote, peer)
}

function protocolMatches({ protocol, ports }: PolicyRule, traffic: Traffic): boolean {
  if (protocol === 'any') return ports === null
  if (protocol !== traffic.protocol) return false
  if (protocol === 'icmp') return ports === null
  return ports === null || (traffic.port !== null && traffic.port >= ports.from && traffic.port <= ports.to)
}

function remoteMatches(remote: PolicyRule['remote'], peer: PolicyPeer): boolean {
  return 'cidr' in remote ? holds(remote.cidr, peer.address) : peer.groups.has(remote.security_group)
}
