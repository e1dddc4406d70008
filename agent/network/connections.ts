import { allowingRule, type PolicyPeer, type PolicyRule, type Traffic } from '@berth/contract/networks/policy.ts'
import { type Abortable, CommandError, runCommand } from '../sys/run-command.ts'
import { inNamespace } from './namespace.ts'
import type { Nic } from './nic.ts'
import type { RulesetPlan } from './ruleset/ruleset.ts'

/** What the connections of a table have in common that rules tell apart: all but the port they came from. */
export interface Connections {
  /** `tcp`, `udp`, `icmp`, or the protocol's number (IANA). */
  protocol: string
  source: string
  /** As it was sent; a public address, perhaps. */
  destination: string
  /** Who it reached. */
  receiver: string
  /** Of the destination; null for protocols without. */
  port: number | null
}

/** Bytes that a list of connections may have: about 300,000 lines, more than the kernel keeps by default. */
const longestList = 64 * 1024 * 1024

/** Deletions, one process each, for one change of rules; with more, whoever opened them loses all of its connections. */
const mostDeletions = 100

/** What conntrack(8) lists, each kind once. Lines that say something else are left out. Pure. */
export function parseConnections(list: string): Connections[] {
  const found = new Map<string, Connections>()
  const line = /^(\S+) +(\d+) .*?src=(\S+) dst=(\S+) (?:sport=\d+ dport=(\d+) )?.*?src=(\S+) /gm
  for (const [, name = '', number = '', source = '', destination = '', port, receiver = ''] of list.matchAll(line)) {
    const protocol = ['tcp', 'udp', 'icmp'].includes(name) ? name : number
    const connections = { protocol, source, destination, receiver, port: port === undefined ? null : Number(port) }
    found.set(Object.values(connections).join(), connections)
  }
  return [...found.values()]
}

/** Those of the connections that the rules of a plan do not let be opened. Pure. */
export function forbiddenConnections(plan: RulesetPlan, all: readonly Connections[]): Connections[] {
  const nics = new Map(plan.nics.map((nic) => [nic.ip, nic]))
  const passes = (address: string, direction: PolicyRule['direction'], traffic: Traffic | null, peer: PolicyPeer) => {
    const nic = nics.get(address)
    if (nic === undefined) return true // not of this VPC: nobody is asked
    return traffic !== null && allowingRule(groupsOf(plan, nic), direction, traffic, peer) !== null
  }
  const peer = (address: string) => ({ address, groups: new Set(nics.get(address)?.security_groups ?? []) })
  return all.filter((connections) => {
    const { source, receiver } = connections
    const traffic = trafficOf(connections)
    const sent = passes(source, 'egress', traffic, peer(receiver))
    return !(sent && passes(receiver, 'ingress', traffic, peer(source)))
  })
}

/**
 * Have the kernel forget the connections that the rules of a plan no longer let be opened. Their packets from the side
 * that opened them stop with the rules; the answers would go on.
 */
export async function cutForbidden(namespace: string, plan: RulesetPlan, options: Abortable): Promise<void> {
  const forbidden = forbiddenConnections(plan, parseConnections(await listConnections(namespace, options)))
  if (forbidden.length > mostDeletions) {
    for (const source of new Set(forbidden.map((each) => each.source))) {
      await deleteConnections(namespace, ['--orig-src', source], options)
    }
    return
  }
  for (const { protocol, source, destination, port } of forbidden) {
    const filter = ['--proto', protocol, '--orig-src', source, '--orig-dst', destination]
    await deleteConnections(namespace, port === null ? filter : [...filter, '--orig-port-dst', `${port}`], options)
  }
}

/**
 * Forget the connections from, to and by way of some addresses, which no new ones may come to by now. Most addresses have
 * few: they are looked for once, and only where they are found is anything deleted.
 */
export async function forgetConnections(
  namespace: string,
  addresses: readonly string[],
  options: Abortable = {},
): Promise<void> {
  const list = await listConnections(namespace, options).catch((error: unknown) => {
    if (options.signal?.aborted || !(error instanceof CommandError)) throw error
    return null // too long, perhaps
  })
  const found = list === null ? null : connectionSides(list)
  // one after the other: each walks the table, and what another deletes meanwhile can make it end early
  for (const side of sides) {
    for (const address of addresses) {
      const mayBe = address !== '' && (found === null || found.get(side)?.has(address) === true)
      if (mayBe) await deleteConnections(namespace, [side, address], options)
    }
  }
}

const sides = ['--orig-src', '--orig-dst', '--reply-src', '--reply-dst'] as const

/** The addresses on each side of the connections that conntrack(8) lists, by its option for that side. Pure. */
export function connectionSides(list: string): Map<(typeof sides)[number], Set<string>> {
  const found = new Map(sides.map((side) => [side, new Set<string>()]))
  for (const [, ...addresses] of list.matchAll(/src=(\S+) dst=(\S+).*?src=(\S+) dst=(\S+)/g)) {
    for (const [index, side] of sides.entries()) found.get(side)?.add(addresses[index] ?? '')
  }
  return found
}

async function listConnections(namespace: string, options: Abortable): Promise<string> {
  const argv = [...inNamespace(namespace), 'conntrack', '-L']
  return (await runCommand(argv, { ...options, maxOutputBytes: longestList })).stdout
}

/** There may be none, which conntrack(8) calls a failure. */
async function deleteConnections(namespace: string, filter: readonly string[], options: Abortable): Promise<void> {
  await runCommand([...inNamespace(namespace), 'conntrack', '-D', ...filter], options).catch((error) => {
    if (!(error instanceof CommandError) || error.exitCode !== 1) throw error
  })
}

/** Null for what rules have no word for: it is forgotten, and opens anew where it may. */
function trafficOf({ protocol, port }: Connections): Traffic | null {
  return protocol === 'tcp' || protocol === 'udp' || protocol === 'icmp' ? { protocol, port } : null
}

function groupsOf({ groups }: RulesetPlan, nic: Nic) {
  return groups.filter(({ id }) => nic.security_groups.includes(id))
}
