import { holds } from '@berth/contract/networks/cidr.ts'
import type { NetworkCheck } from '@berth/contract/networks/explain.ts'
import {
  allowingRule,
  type PolicyGroup,
  type PolicyPeer,
  type PolicyRule,
  type Traffic,
} from '@berth/contract/networks/policy.ts'
import type { SecurityGroupRule } from '@berth/contract/networks/security-groups.ts'

/** An instance as one end of a connection. */
export interface InstanceEnd {
  id: string
  vpc: { id: string; cidr: string; gateways: readonly string[] }
  privateAddress: string
  /** "" for none. */
  publicAddress: string
  groups: readonly PolicyGroup[]
}

/** One end of a connection: an instance, or an address that no instance has. */
export type End = { instance: InstanceEnd; address: string } | { instance: null; address: string }

/** Where instances without a public address are seen to come from by other VPCs: their uplinks (RFC 6598). */
const uplinkAddresses = '100.64.0.0/10'
const anUplinkAddress = '100.64.0.3'

/** Address of the metadata service in every VPC. */
const metadataAddress = '169.254.169.254'

/**
 * The checks that packets pass which open a connection, in the order of their way; the last one says whether they
 * arrive. `to.address` is what the sender writes into them. One end at least is an instance. Pure.
 */
export function checkTraffic(from: End, to: End, traffic: Traffic): NetworkCheck[] {
  if (from.instance === null) {
    if (to.instance === null) throw new TypeError('one end of a connection must be an instance')
    return fromOutside(from.address, to.instance, traffic)
  }
  if (to.instance === null) return toOutside(from.instance, to.address, traffic)
  return betweenInstances(from.instance, to.instance, traffic)
}

function betweenInstances(from: InstanceEnd, to: InstanceEnd, traffic: Traffic): NetworkCheck[] {
  if (from.vpc.id === to.vpc.id) {
    return untilDropped([
      () => passes('route', 'same_vpc', `Both are in ${from.vpc.id}; the host forwards between their cards.`),
      () => groupCheck('egress', from, traffic, peerOf(to)),
      () => groupCheck('ingress', to, traffic, peerOf(from)),
    ])
  }
  if (to.publicAddress === '') {
    const message = `${to.id} is in ${to.vpc.id}, not in ${from.vpc.id}, and has no public address to be reached by.`
    return [drops('route', 'other_vpc', message)]
  }
  const source = from.publicAddress === '' ? anUplinkAddress : from.publicAddress
  return untilDropped([
    () => passes('route', 'by_public_address', `${to.id} is in another VPC and is reached by ${to.publicAddress}.`),
    () => groupCheck('egress', from, traffic, stranger(to.publicAddress)),
    () => groupCheck('ingress', to, traffic, stranger(source)),
  ])
}

function fromOutside(address: string, to: InstanceEnd, traffic: Traffic): NetworkCheck[] {
  if (to.publicAddress === '') {
    return [drops('route', 'no_public_address', `${to.id} has no public address, so nothing from outside reaches it.`)]
  }
  if (holds(to.vpc.cidr, address)) {
    const message = `${address} belongs to ${to.vpc.id} (${to.vpc.cidr}); from outside such packets are forged.`
    return [drops('route', 'address_of_the_vpc', message)]
  }
  return untilDropped([
    () => passes('route', 'by_public_address', `${to.id} is reached from outside by ${to.publicAddress}.`),
    () => groupCheck('ingress', to, traffic, stranger(address)),
  ])
}

function toOutside(from: InstanceEnd, address: string, traffic: Traffic): NetworkCheck[] {
  if (address === metadataAddress || from.vpc.gateways.includes(address)) return [serviceCheck(from, address, traffic)]
  if (holds(from.vpc.cidr, address)) {
    const message = `${address} is of ${from.vpc.id} (${from.vpc.cidr}), but no instance there has it.`
    return [drops('route', 'address_without_instance', message)]
  }
  if (holds(uplinkAddresses, address) || holds('169.254.0.0/16', address)) {
    return [drops('route', 'address_without_instance', `${address} is never reached from inside a VPC.`)]
  }
  const source = from.publicAddress === '' ? "the host's own address" : from.publicAddress
  return untilDropped([
    () => passes('route', 'to_the_world', `${address} is not of ${from.vpc.id}; packets leave under ${source}.`),
    () => groupCheck('egress', from, traffic, stranger(address)),
  ])
}

/** DNS, DHCP, metadata and ping, which every instance may use whatever its groups say. */
function serviceCheck(from: InstanceEnd, address: string, { protocol, port }: Traffic): NetworkCheck {
  const dns = port === 53 && protocol !== 'icmp'
  const metadata = address === metadataAddress && protocol === 'tcp' && port === 80
  if (protocol === 'icmp' || dns || (protocol === 'udp' && port === 67) || metadata) {
    const message = `${address} serves every instance of ${from.vpc.id}; groups are not asked.`
    return passes('service', 'service_of_the_vpc', message)
  }
  const message = `${address} serves DNS, DHCP and ping, and ${metadataAddress} metadata at tcp/80; nothing else.`
  return drops('service', 'no_such_service', message)
}

function groupCheck(
  direction: PolicyRule['direction'],
  instance: InstanceEnd,
  traffic: Traffic,
  peer: PolicyPeer,
): NetworkCheck {
  const { id, groups } = instance
  const place = allowingRule(groups, direction, traffic, peer)
  const what = trafficText(traffic)
  const who = peer.groups.size === 0 ? peer.address : `${peer.address} (${[...peer.groups].join(', ')})`
  const where = direction === 'ingress' ? `in from ${who}` : `out to ${who}`
  const about = { at: direction, instance_id: id } as const
  if (place !== null) {
    return {
      ...about,
      passes: true,
      reason: 'rule_allows',
      message: `Rule ${place.index} of ${place.group} lets ${what} ${where}.`,
      security_group: place.group,
      rule_index: place.index,
      missing_rule: null,
    }
  }
  const names = groups.map((group) => group.id).join(', ')
  return {
    ...about,
    passes: false,
    reason: 'no_rule_allows',
    message:
      groups.length === 0
        ? `${id} carries no security group, so nothing passes.`
        : `No ${direction} rule of ${names} lets ${what} ${where}.`,
    security_group: '',
    rule_index: null,
    missing_rule: missingRule(direction, traffic, peer),
  }
}

/** The narrowest rule that would let it pass: for a group of the peer when it has one, else for its address. */
function missingRule(
  direction: PolicyRule['direction'],
  { protocol, port }: Traffic,
  peer: PolicyPeer,
): SecurityGroupRule {
  const [group] = peer.groups
  return {
    direction,
    protocol,
    ...(port === null ? {} : { port_from: port, port_to: port }),
    remote: group === undefined ? { cidr: `${peer.address}/32` } : { security_group: group },
    description: '',
  }
}

function peerOf(instance: InstanceEnd): PolicyPeer {
  return { address: instance.privateAddress, groups: new Set(instance.groups.map((group) => group.id)) }
}

function stranger(address: string): PolicyPeer {
  return { address, groups: new Set() }
}

function trafficText({ protocol, port }: Traffic): string {
  return port === null ? protocol : `${protocol}/${port}`
}

type Outcome = Pick<NetworkCheck, 'at' | 'reason' | 'message'>

function outcome(passes: boolean, { at, reason, message }: Outcome): NetworkCheck {
  return { at, instance_id: '', passes, reason, message, security_group: '', rule_index: null, missing_rule: null }
}

function passes(at: Outcome['at'], reason: Outcome['reason'], message: string): NetworkCheck {
  return outcome(true, { at, reason, message })
}

function drops(at: Outcome['at'], reason: Outcome['reason'], message: string): NetworkCheck {
  return outcome(false, { at, reason, message })
}

/** Run checks one after the other, up to the first that does not pass. */
function untilDropped(checks: readonly (() => NetworkCheck)[]): NetworkCheck[] {
  const done: NetworkCheck[] = []
  for (const check of checks) {
    const result = check()
    done.push(result)
    if (!result.passes) break
  }
  return done
}
