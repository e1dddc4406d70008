import { groupKey } from '@berth/contract/hosts/names.ts'
import { parseAddress } from '@berth/contract/networks/cidr.ts'
import { type PolicyGroup, type PolicyRule, ruleFault } from '@berth/contract/networks/policy.ts'
import { linkLocalRange, nameServerUser, serviceAddress, uplinkInside, uplinkRange } from '../names.ts'
import type { Nic } from '../nic.ts'

/** What the ruleset of a VPC's namespace is made from. */
export interface RulesetPlan {
  /** The VPC's own network. */
  cidr: string
  nics: readonly Nic[]
  /** The groups that the cards carry; a group that is not here lets nothing pass, nor does a rule with a fault. */
  groups: readonly PolicyGroup[]
}

/** The ruleset of a VPC's namespace, as parts that can be compared. */
export interface Ruleset {
  /** Declarations of the sets, maps and chains that every ruleset has. */
  declarations: string
  /** The rules of those chains. */
  base: string
  /** Declarations of the sets that cards, groups and bandwidths bring, by name. */
  sets: ReadonlyMap<string, string>
  /** The rules of the chains that they bring, by name. */
  chains: ReadonlyMap<string, readonly string[]>
  /** Elements of all sets and maps but those that packets fill, by family, table and name. */
  elements: ReadonlyMap<string, readonly string[]>
}

/**
 * The client's MAC in a DHCP message: 48 bits behind the UDP header and 28 bytes (RFC 2131, section 2). The server goes by
 * it, not by the frame's, so a guest could have another's address offered to it, or declined.
 */
const clientOfDhcp = '@th,288,48'

/** Connections that an instance may have open in each direction: a guest must not fill the table of its neighbours. */
export const mostConnections = 8192

/**
 * Fastest bandwidth that packets of a guest are held to, Mbit/s: the kernel counts a bucket in 64 bits of nanoseconds times
 * bytes (nft_limit_init, net/netfilter/nft_limit.c), and refuses the ruleset for a larger one. No card of a guest is as fast.
 */
export const fastestHeld = 130_000

/** Packets a second that a guest may send to the services of its namespace (DNS, DHCP, metadata, ping). */
export const servicePacketsPerSecond = 1000

/**
 * What a guest may ask of its DNS and DHCP server. Answers of name servers take their time, connections a process of
 * dnsmasq each, of which it has twenty; so none may take all of either.
 */
const questions = { perSecond: 200, burst: 500, connections: 5, leasesPerSecond: 10 }

/**
 * The address that the packet was sent to which an ICMP error is about: 32 bits of the IPv4 header behind ICMP's 8 bytes
 * (RFC 792).
 */
const destinationOfError = '@th,192,32'

/** Connections a second that a guest may open to the metadata service, and how many at once. */
const metadataConnections = { perSecond: 50, burst: 100 }

/**
 * The nftables ruleset of a VPC's namespace. Sorted, so equal input gives equal rulesets. All values come from our own
 * patterns (tap names, MACs, addresses, ids); names and descriptions are not in the input. Pure.
 *
 * A packet that opens a connection passes `antispoof` (its own tap, MAC and address or nothing), then `fwd_out` by the
 * groups of the tap it came from, then `fwd_in` by the groups of the tap it goes to: two chains, because `accept` ends
 * only one. Answers are taken in both by their connection; of a connection that a rule had let through, and that went,
 * the kernel is told to forget (`cutForbidden`). What a DHCP server says is the namespace's own alone,
 * and nobody reaches uplinks or link-local addresses of the host from here.
 *
 * A VMM lives in the namespace for its tap and may send nothing else: from `output` only root's processes (the metadata
 * service, `berth ssh`) and the name server's go on. What the kernel sends by itself (ICMP, resets) has no user, so no
 * `skuid` matches it.
 */
export function rulesetOf(plan: RulesetPlan): Ruleset {
  const nics = sorted(plan.nics)
  const groups = carriedGroups(plan)
  const ingressChains = new Map(groups.map(({ id }) => [id, ingressChain(id)]))
  const egressChains = new Map(groups.map(({ id }) => [id, egressChain(id)]))
  const rates = distinctRates(nics)
  const withPublic = nics.filter((nic) => nic.public_ip !== '')
  const members = membersOf(nics)
  return {
    declarations,
    base: baseRules(plan.cidr),
    sets: new Map([
      ...groupIds(plan).map((id): [string, string] => [memberSet(id), 'type ipv4_addr;']),
      ...rates.map((rate): [string, string] => [rateSet(rate), dynamicTaps]),
    ]),
    chains: new Map([
      ...rates.map((rate): Chain => [rateChain(rate), [rateRule(rate)]]),
      ...groups.flatMap((group): Chain[] => [
        [ingressChain(group.id), directionRules(group, 'ingress')],
        [egressChain(group.id), directionRules(group, 'egress')],
      ]),
      ...nics.flatMap((nic): Chain[] => [
        [`in_${nic.tap}`, [...jumps(nic, ingressChains), 'drop']],
        [`out_${nic.tap}`, [...jumps(nic, egressChains), 'drop']],
      ]),
    ]),
    elements: new Map([
      ['arp vpc bind', nics.map((nic) => `"${nic.tap}" . ${nic.mac} . ${nic.ip}`)],
      ['inet vpc bind', nics.map((nic) => `"${nic.tap}" . ${nic.mac} . ${nic.ip}`)],
      ['inet vpc bindmac', nics.map((nic) => `"${nic.tap}" . ${nic.mac}`)],
      ['inet vpc chaddr', nics.map((nic) => `"${nic.tap}" . 0x${nic.mac.replaceAll(':', '')}`)],
      ['inet vpc addressee', nics.map((nic) => `"${nic.tap}" . 0x${hexadecimal(nic.ip)}`)],
      ...groupIds(plan).map((id): [string, string[]] => [`inet vpc ${memberSet(id)}`, members.get(id) ?? []]),
      [
        'inet vpc rates',
        nics
          .filter((nic) => isHeld(nic.bandwidth_mbps))
          .map((nic) => `"${nic.tap}" : jump ${rateChain(nic.bandwidth_mbps)}`),
      ],
      ['inet vpc public_in', withPublic.map((nic) => `${nic.public_ip} : ${nic.ip}`)],
      ['inet vpc public_out', withPublic.map((nic) => `${nic.ip} : ${nic.public_ip}`)],
      ['inet vpc vm_in', nics.map((nic) => `"${nic.tap}" : jump in_${nic.tap}`)],
      ['inet vpc vm_out', nics.map((nic) => `"${nic.tap}" : jump out_${nic.tap}`)],
    ]),
  }
}

const ingressChain = (group: string) => `sgi_${groupKey(group)}`
const egressChain = (group: string) => `sgo_${groupKey(group)}`
const memberSet = (group: string) => `sgm_${groupKey(group)}`
const rateChain = (mbps: number) => `rate_${mbps}`
const rateSet = (mbps: number) => `spent_${mbps}`

function hexadecimal(address: string): string {
  return (parseAddress(address) ?? 0).toString(16).padStart(8, '0')
}

function sorted(nics: readonly Nic[]): Nic[] {
  return [...nics].sort((a, b) => (a.tap < b.tap ? -1 : 1))
}

/** The known groups that a card carries, by id. */
function carriedGroups({ nics, groups }: RulesetPlan): PolicyGroup[] {
  const carried = new Set(nics.flatMap((nic) => nic.security_groups))
  return groups.filter(({ id }) => carried.has(id)).sort((a, b) => (a.id < b.id ? -1 : 1))
}

/** The groups that have a set of their members: those that a card carries or that a rule names. */
function groupIds(plan: RulesetPlan): string[] {
  const named = carriedGroups(plan).flatMap(({ rules }) =>
    rules.flatMap(({ remote }) => ('security_group' in remote ? [remote.security_group] : [])),
  )
  const all = new Set([...plan.nics.flatMap((nic) => nic.security_groups), ...named])
  return [...all].sort()
}

/** Addresses of the cards that carry each group. */
function membersOf(nics: readonly Nic[]): Map<string, string[]> {
  const members = new Map<string, string[]>()
  for (const nic of nics) {
    for (const group of nic.security_groups) {
      const addresses = members.get(group)
      if (addresses === undefined) members.set(group, [nic.ip])
      else addresses.push(nic.ip)
    }
  }
  return members
}

function distinctRates(nics: readonly Nic[]): number[] {
  return [...new Set(nics.map((nic) => nic.bandwidth_mbps))].filter(isHeld).sort((a, b) => a - b)
}

function isHeld(mbps: number): boolean {
  return mbps > 0 && mbps <= fastestHeld
}

/** `chains` has those of the known groups. */
function jumps(nic: Nic, chains: ReadonlyMap<string, string>): string[] {
  return nic.security_groups.flatMap((id) => (chains.has(id) ? [`jump ${chains.get(id)} comment "${id}"`] : []))
}

function directionRules(group: PolicyGroup, direction: PolicyRule['direction']): string[] {
  return group.rules.filter((rule) => rule.direction === direction && ruleFault(rule) === null).map(renderRule)
}

/** One rule of a group: what it matches, then `accept`. */
function renderRule({ direction, protocol, ports, remote }: PolicyRule): string {
  const side = direction === 'ingress' ? 'saddr' : 'daddr'
  const matches: string[] = []
  if (protocol !== 'any') {
    const transport = protocol !== 'icmp' && ports !== null && !(ports.from === 0 && ports.to === 65_535)
    if (!transport) matches.push(`meta l4proto ${protocol}`)
    else matches.push(`${protocol} dport ${ports.from === ports.to ? ports.from : `${ports.from}-${ports.to}`}`)
  }
  if ('security_group' in remote) matches.push(`ip ${side} @${memberSet(remote.security_group)}`)
  else if (remote.cidr !== '0.0.0.0/0') matches.push(`ip ${side} ${remote.cidr}`)
  return [...matches, 'accept'].join(' ')
}

/**
 * What a guest sends above its bandwidth is dropped. 1.1 seconds' worth may come at once: the kernel's bucket holds the
 * rate's own second and the burst (nft_limit_init, net/netfilter/nft_limit.c).
 */
function rateRule(mbps: number): string {
  const bytes = mbps * 125_000
  return `update @${rateSet(mbps)} { iifname limit rate over ${bytes} bytes/second burst ${bytes / 10} bytes } drop`
}

/** Of a set of taps that packets fill. */
const dynamicTaps = 'type ifname; flags dynamic,timeout; timeout 1m; size 65535;'

const declarations = `table arp vpc {
  set bind { type ifname . ether_addr . ipv4_addr; }
  chain input { type filter hook input priority 0; policy drop; }
}
table inet vpc {
  set bind { type ifname . ether_addr . ipv4_addr; }
  set bindmac { type ifname . ether_addr; }
  set chaddr { typeof iifname . ${clientOfDhcp}; }
  set addressee { typeof iifname . ${destinationOfError}; }
  set asked { ${dynamicTaps} }
  set asked_dhcp { ${dynamicTaps} }
  set asked_dns { ${dynamicTaps} }
  set dialled_dns { type ipv4_addr; flags dynamic; size 65535; }
  set knocked { ${dynamicTaps} }
  set opened { type ipv4_addr; flags dynamic; size 65535; }
  set taken { type ipv4_addr; flags dynamic; size 65535; }
  map vm_in { type ifname : verdict; }
  map vm_out { type ifname : verdict; }
  map rates { type ifname : verdict; }
  map public_in { type ipv4_addr : ipv4_addr; }
  map public_out { type ipv4_addr : ipv4_addr; }
  chain antispoof { type filter hook prerouting priority raw; policy drop; }
  chain input { type filter hook input priority 0; policy drop; }
  chain output { type filter hook output priority -150; policy accept; }
  chain fwd_out { type filter hook forward priority 0; policy drop; }
  chain fwd_in { type filter hook forward priority 10; policy drop; }
  chain mss { type filter hook forward priority -150; policy accept; }
  chain nat_pre { type nat hook prerouting priority dstnat; policy accept; }
  chain nat_post { type nat hook postrouting priority srcnat; policy accept; }
}`

/** The rules that no card or group changes. */
function baseRules(cidr: string): string {
  return `table arp vpc {
  chain input {
    iifname "${uplinkInside}" accept
    iifname . arp saddr ether . arp saddr ip @bind accept
  }
}
table inet vpc {
  chain antispoof {
    iifname "lo" accept
    iifname "${uplinkInside}" ip saddr ${cidr} drop
    iifname "${uplinkInside}" accept
    iifname vmap @rates
    icmp type { 3, 4, 5, 11, 12 } iifname . ${destinationOfError} != @addressee drop
    iifname . ether saddr . ip saddr @bind accept
    iifname . ether saddr @bindmac ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept
  }
  chain input {
    iifname "lo" accept
    ct state established,related ct direction reply accept
    iifname "${uplinkInside}" drop
    update @asked { iifname limit rate over ${servicePacketsPerSecond}/second burst ${servicePacketsPerSecond} packets } drop
    udp dport 67 update @asked_dhcp { iifname limit rate over ${questions.leasesPerSecond}/second burst ${2 * questions.leasesPerSecond} packets } drop
    udp dport 67 iifname . ${clientOfDhcp} @chaddr accept
    udp dport 67 drop
    udp dport 53 update @asked_dns { iifname limit rate over ${questions.perSecond}/second burst ${questions.burst} packets } drop
    ct state established accept
    add @opened { ip saddr ct count over ${mostConnections} } drop
    tcp dport 53 add @dialled_dns { ip saddr ct count over ${questions.connections} } drop
    meta l4proto { tcp, udp } th dport 53 accept
    ip daddr ${serviceAddress} tcp dport 80 update @knocked { iifname limit rate over ${metadataConnections.perSecond}/second burst ${metadataConnections.burst} packets } drop
    ip daddr ${serviceAddress} tcp dport 80 accept
    icmp type echo-request accept
  }
  chain output {
    ip saddr ${serviceAddress} tcp sport 80 ip ttl set 1
    meta skuid 0 accept
    meta skuid ${nameServerUser.uid} ct state established,related ct direction reply accept
    meta skuid ${nameServerUser.uid} udp sport 67 udp dport 68 accept
    meta skuid ${nameServerUser.uid} oifname "${uplinkInside}" meta l4proto { tcp, udp } th dport 53 accept
    meta skuid != 0 drop
  }
  chain fwd_out {
    ct state invalid drop
    ct state established ct direction reply accept
    ct state related accept
    udp sport 67 udp dport 68 drop
    iifname "${uplinkInside}" accept
    ip daddr ${uplinkRange} drop
    ip daddr ${linkLocalRange} drop
    ct state new add @opened { ip saddr ct count over ${mostConnections} } drop
    iifname vmap @vm_out
  }
  chain fwd_in {
    ct state established ct direction reply accept
    ct state related accept
    oifname "${uplinkInside}" ip saddr ${cidr} accept
    ct state new add @taken { ip daddr ct count over ${mostConnections} } drop
    oifname vmap @vm_in
  }
  chain mss {
    tcp flags syn tcp option maxseg size set rt mtu
  }
  chain nat_pre {
    dnat ip to ip daddr map @public_in
  }
  chain nat_post {
    oifname "${uplinkInside}" snat ip to ip saddr map @public_out
    oifname "${uplinkInside}" masquerade
    ct status dnat snat ip to ip saddr map @public_out
  }
}`
}

type Chain = [name: string, rules: readonly string[]]
