import { readdir } from 'node:fs/promises'
import type { HostOrphan } from '@berth/contract/hosts/agent-protocol.ts'
import { hostTableName, namespacePrefix, uplinkName, vpcNamespaceName } from '@berth/contract/hosts/names.ts'
import { holds } from '@berth/contract/networks/cidr.ts'
import type { KnownObjects } from '../../sys/leftovers.ts'
import { type Abortable, runCommand } from '../../sys/run-command.ts'
import { uplinkInside } from '../names.ts'
import { inNamespace, namespaceDirectory } from '../namespace.ts'
import { foreignTo, type Listing, readListing } from '../ruleset/listing.ts'
import { parseJsonList, parseRoutes } from './observation.ts'

/** What an installation's links in the host's own namespace are marked with, so that a lost one can be told. */
export function linkAlias(installation: string): string {
  return `berth-${installation}`
}

/** Everything that explains what is in the namespace of a VPC. */
export interface ExplainedVpc {
  cidr: string
  /** Whether a link is the tap of an instance that is known here. */
  isTap: (link: string) => boolean
  /** Of the cards that are attached: address and tap. */
  cards: readonly { ip: string; tap: string }[]
  gateways: readonly string[]
  rules: Listing
}

/** Namespaces of an installation that belong to no known VPC. What is known is asked after the look, here and below. */
export async function namespaceOrphans(installation: string, known: () => KnownObjects): Promise<HostOrphan[]> {
  const names = await readdir(namespaceDirectory).catch((): string[] => [])
  const explained = new Set([...known().vpcs].map((vpcId) => vpcNamespaceName(installation, vpcId)))
  return names
    .filter((name) => name.startsWith(namespacePrefix(installation)) && !explained.has(name))
    .map((name) => ({ kind: 'namespace', name, detail: 'no VPC with an instance here has this namespace' }))
}

/** Links and tables of an installation in the host's own namespace that belong to no known VPC. */
export async function hostOrphans(
  installation: string,
  known: () => KnownObjects,
  expected: Listing | null,
  options: Abortable,
): Promise<HostOrphan[]> {
  const { stdout } = await runCommand(['ip', '-json', 'link', 'show'], options)
  const uplinks = new Set([...known().vpcs].map((vpcId) => uplinkName(installation, vpcId)))
  const marked = parseJsonList(stdout).filter(({ ifalias }) => ifalias === linkAlias(installation))
  const links = marked.map(({ ifname }) => String(ifname)).filter((name) => !uplinks.has(name))
  const table = hostTableName(installation)
  const listing = await readListing([], table, options)
  const rules: HostOrphan[] =
    expected === null
      ? [...listing.definitions.keys()]
          .filter((name) => name.startsWith('table '))
          .map((name) => ({ kind: 'nft_table', name, detail: 'no VPC has an uplink' }))
      : nftObjects(expected, listing, 'the host')
  return [
    ...links.map((name): HostOrphan => ({ kind: 'link', name, detail: 'the uplink of no VPC with an instance here' })),
    ...rules,
  ]
}

/** What is in the namespace of a VPC that no card and no part of every VPC explains. */
export async function vpcOrphans(namespace: string, vpc: ExplainedVpc, options: Abortable): Promise<HostOrphan[]> {
  const ip = (...args: string[]) => runCommand(['ip', '-netns', namespace, '-json', ...args], options)
  const enter = inNamespace(namespace)
  const [links, routes, neighbours, tables, listing, connections] = await Promise.all([
    ip('link', 'show'),
    ip('-4', 'route', 'show'),
    ip('-4', 'neigh', 'show', 'nud', 'permanent'),
    runCommand([...enter, 'nft', '--json', 'list', 'tables'], options),
    readListing(enter, 'vpc', options),
    runCommand([...enter, 'conntrack', '-L'], { ...options, maxOutputBytes: 64 * 1024 * 1024 }),
  ])
  const where = `in ${namespace}`
  const explained = new Set(vpc.cards.map((card) => `${card.ip} ${card.tap}`))
  return [
    ...parseJsonList(links.stdout)
      .map(({ ifname }) => String(ifname))
      .filter((name) => name !== 'lo' && name !== uplinkInside && !vpc.isTap(name))
      .map((name): HostOrphan => ({ kind: 'link', name, detail: `${where}; the tap of no instance` })),
    ...parseRoutes(routes.stdout)
      .filter(({ type, dst, dev }) => {
        const own = dev === uplinkInside || (type === 'unreachable' && dst === vpc.cidr)
        return !own && !explained.has(`${dst} ${dev}`)
      })
      .map(
        ({ dst, dev }): HostOrphan => ({ kind: 'route', name: `${dst} dev ${dev}`, detail: `${where}; to no card` }),
      ),
    ...parseJsonList(neighbours.stdout)
      .filter(({ dst, dev }) => !explained.has(`${dst} ${dev}`))
      .map(
        ({ dst, dev }): HostOrphan => ({ kind: 'neighbour', name: `${dst} dev ${dev}`, detail: `${where}; no card` }),
      ),
    ...tableNames(tables.stdout)
      .filter((name) => name !== 'inet vpc' && name !== 'arp vpc')
      .map((name): HostOrphan => ({ kind: 'nft_table', name, detail: `${where}; not made by Berth` })),
    ...nftObjects(vpc.rules, listing, namespace),
    ...strayConnections(connections.stdout, vpc).map(
      (name): HostOrphan => ({ kind: 'connection', name, detail: `${where}; an address that no card has` }),
    ),
  ]
}

function nftObjects(expected: Listing, listing: Listing, where: string): HostOrphan[] {
  return foreignTo(expected, listing).map((name) => ({
    kind: 'nft_object',
    name,
    detail: `in ${where}; nothing asks for it`,
  }))
}

function tableNames(json: string): string[] {
  const { nftables } = JSON.parse(json) as { nftables: { table?: { family: string; name: string } }[] }
  return nftables.flatMap(({ table }) => (table === undefined ? [] : [`${table.family} ${table.name}`]))
}

/**
 * Connections of conntrack(8)'s list, opened from or to an address of the VPC that no card has, each as
 * `<source> <destination>` and once. Pure.
 */
export function strayConnections(
  list: string,
  { cidr, cards, gateways }: Pick<ExplainedVpc, 'cidr' | 'cards' | 'gateways'>,
) {
  const held = new Set([...cards.map(({ ip }) => ip), ...gateways])
  const isStray = (address: string) => holds(cidr, address) && !held.has(address)
  const found = list.split('\n').flatMap((line) => {
    const [, source = '', destination = ''] = /\bsrc=(\S+) dst=(\S+)/.exec(line) ?? []
    return isStray(source) || isStray(destination) ? [`${source} ${destination}`] : []
  })
  return [...new Set(found)]
}
