import type { DesiredNetwork, NetworkObject } from '@berth/contract/hosts/agent-protocol.ts'
import { gatewayMac, serviceAddress, tapMtu, uplinkInside } from '../names.ts'
import type { Nic } from '../nic.ts'
import { compareListings, type Listing } from '../ruleset/listing.ts'
import type { Uplink } from '../uplink/uplinks.ts'
import { type SeenNamespace, settingName, wantedSettings } from './observation.ts'

/** How something is put right; each is done at most once, in this order, whatever number of repairs asks for it. */
export const remedies = ['uplink', 'namespace', 'taps', 'rules', 'rules_anew', 'dnsmasq'] as const
export type Remedy = (typeof remedies)[number]

/** One object that is not what it should be. */
export interface PlannedRepair {
  object: NetworkObject
  detail: string
  remedy: Remedy
  /** The tap to make anew, of the remedy `taps`. */
  tap?: string
}

/** What a VPC should be on this host. */
export interface WantedVpc {
  network: DesiredNetwork
  /** The cards whose taps should be there. */
  nics: readonly Nic[]
  rules: Listing
}

/** What there is of it. */
export interface SeenVpc extends SeenNamespace {
  /** The host's end of the uplink, when it is there, up, and has its address. */
  uplink: Uplink | null
  /** What is wrong with dnsmasq, in words. */
  dnsmasq: readonly string[]
}

/**
 * What has to be done so that a VPC is what it should be; nothing when it is. What is there besides (other routes, other
 * links) is left alone: it is told of as an orphan. Pure.
 */
export function planRepairs(wanted: WantedVpc, seen: SeenVpc): PlannedRepair[] {
  const difference = compareListings(wanted.rules, seen.rules)
  return [
    ...uplinkRepairs(seen),
    ...routeRepairs(wanted.network, seen),
    ...settingRepairs(wanted.nics, seen),
    ...wanted.nics.flatMap((nic) => tapRepairs(nic, seen)),
    ...(difference === null
      ? []
      : [
          {
            object: 'ruleset',
            detail: difference.detail,
            remedy: difference.foreign ? 'rules_anew' : 'rules',
          } as const,
        ]),
    ...seen.dnsmasq.map((detail): PlannedRepair => ({ object: 'dnsmasq', detail, remedy: 'dnsmasq' })),
  ]
}

function uplinkRepairs({ uplink, links }: SeenVpc): PlannedRepair[] {
  const inside = links.get(uplinkInside)
  const broken = (detail: string, remedy: Remedy): PlannedRepair => ({ object: 'uplink', detail, remedy })
  if (inside === undefined) return [broken(`${uplinkInside} is missing`, 'uplink')]
  const found: PlannedRepair[] = []
  if (uplink === null) found.push(broken("the host's end is missing, down or without its address", 'namespace'))
  else if (!inside.addresses.includes(`${uplink.insideAddress}/31`)) {
    found.push(broken(`${uplinkInside} has not the address ${uplink.insideAddress}`, 'namespace'))
  }
  if (!inside.up) found.push(broken(`${uplinkInside} is down`, 'namespace'))
  const lo = links.get('lo')
  if (lo?.up !== true || !lo.addresses.includes(`${serviceAddress}/32`)) {
    found.push(broken(`lo is down or has not the address ${serviceAddress}`, 'namespace'))
  }
  return found
}

function routeRepairs(network: DesiredNetwork, { uplink, routes }: SeenVpc): PlannedRepair[] {
  const found: PlannedRepair[] = []
  const missing = (detail: string) => found.push({ object: 'route', detail, remedy: 'namespace' })
  // without an uplink the route goes with it and comes with it
  if (uplink !== null && !routes.some((route) => route.dst === 'default' && route.gateway === uplink.outsideAddress)) {
    missing(`default by ${uplink.outsideAddress} is missing`)
  }
  if (!routes.some((route) => route.type === 'unreachable' && route.dst === network.cidr)) {
    missing(`unreachable ${network.cidr} is missing`)
  }
  return found
}

function settingRepairs(nics: readonly Nic[], { settings, links }: SeenVpc): PlannedRepair[] {
  const there = nics.filter(({ tap }) => links.has(tap)) // those of a tap that is missing come with it
  return wantedSettings(there.map(({ tap }) => tap)).flatMap((setting): PlannedRepair[] => {
    const name = settingName(setting)
    const value = settings.get(name)
    if (`${name}=${value}` === setting) return []
    if (name.includes(`.${uplinkInside}.`) && !links.has(uplinkInside)) return []
    const tap = there.find((nic) => name.includes(`.${nic.tap}.`))?.tap
    const detail = `${name} is ${value ?? 'missing'}`
    return [{ object: 'setting', detail, ...(tap === undefined ? { remedy: 'namespace' } : { remedy: 'taps', tap }) }]
  })
}

function tapRepairs(nic: Nic, seen: SeenVpc): PlannedRepair[] {
  const { tap } = nic
  const link = seen.links.get(tap)
  const repair = (object: NetworkObject, detail: string): PlannedRepair => ({ object, detail, remedy: 'taps', tap })
  if (link === undefined) return [repair('tap', `${tap} is missing`)]
  const found: PlannedRepair[] = []
  if (!link.up) found.push(repair('tap', `${tap} is down`))
  if (link.mtu !== tapMtu) found.push(repair('tap', `${tap} has the MTU ${link.mtu}`))
  if (link.mac !== gatewayMac) found.push(repair('tap', `${tap} has the MAC ${link.mac}`))
  if (!link.addresses.includes(`${nic.gateway}/32`)) found.push(repair('tap', `${tap} has not ${nic.gateway}`))
  // a link that is down has neither, and gets both with it
  if (link.up && !seen.routes.some((route) => route.dst === nic.ip && route.dev === tap)) {
    found.push(repair('route', `${nic.ip} by ${tap} is missing`))
  }
  if (link.up && seen.neighbours.get(`${tap} ${nic.ip}`) !== nic.mac) {
    found.push(repair('neighbour', `${nic.ip} of ${tap} is not ${nic.mac}`))
  }
  const rate = nic.bandwidth_mbps === 0 ? null : nic.bandwidth_mbps * 125_000
  if ((seen.rates.get(tap) ?? null) !== rate) found.push(repair('shaping', `${tap} has another bandwidth`))
  return found
}
