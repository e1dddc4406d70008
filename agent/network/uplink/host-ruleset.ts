import { uplinkRange } from '../names.ts'

/** What an installation's table in the host's own network namespace is made from. */
export interface HostRulesetPlan {
  /** Name of the table. */
  table: string
  /** The host's ends of the uplinks. */
  uplinks: readonly string[]
  /** Public addresses that instances here have. */
  publicAddresses: readonly string[]
  /** Whether the network beyond the host knows the way to the public addresses; else they go out as the host's own. */
  announced: boolean
}

/**
 * Connections that a VPC may have open in each direction in the host's own table, which holds 262,144 on a host of some
 * size (nf_conntrack_max): a VPC must not fill it for the others and for the host.
 */
export const mostVpcConnections = 32_768

/**
 * The ruleset that stands between a host and the VPCs on it: instances reach what the host reaches, under the host's
 * address, but not the host itself, nor each other but by public addresses. Loaded as one transaction over what is
 * there. Without an uplink the table goes. Pure.
 */
export function renderHostRuleset({ table, uplinks, publicAddresses, announced }: HostRulesetPlan): string {
  // declared first, so that it can be deleted whether it is there or not
  if (uplinks.length === 0) return `table inet ${table} {\n}\ndelete table inet ${table}\n`
  const elements = (set: string, values: readonly string[]) =>
    values.length === 0 ? '' : `add element inet ${table} ${set} { ${[...values].sort().join(', ')} }\n`
  return `table inet ${table} {
  set uplinks { type ifname; }
  set public_addresses { type ipv4_addr; }
  set opened { type ifname; flags dynamic; size 65535; }
  set taken { type ifname; flags dynamic; size 65535; }
  chain input { type filter hook input priority 0; policy accept; }
  chain forward { type filter hook forward priority 0; policy accept; }
  chain nat_post { type nat hook postrouting priority srcnat; policy accept; }
}
flush table inet ${table}
flush set inet ${table} uplinks
flush set inet ${table} public_addresses
${elements(
  'uplinks',
  uplinks.map((name) => `"${name}"`),
)}${elements('public_addresses', publicAddresses)}table inet ${table} {
  chain input {
    iifname @uplinks ct state established,related accept
    iifname @uplinks meta l4proto icmp accept
    iifname @uplinks drop
  }
  chain forward {
    iifname @uplinks ip saddr != ${uplinkRange} ip saddr != @public_addresses drop
    iifname @uplinks oifname @uplinks ct state established,related accept
    iifname @uplinks oifname @uplinks ip daddr != @public_addresses drop
    oifname @uplinks ct state established,related accept
    oifname @uplinks ip daddr != @public_addresses drop
    iifname @uplinks ct state new add @opened { iifname ct count over ${mostVpcConnections} } drop
    oifname @uplinks ct state new add @taken { oifname ct count over ${mostVpcConnections} } drop
  }
  chain nat_post {
    iifname @uplinks oifname != @uplinks ip saddr ${uplinkRange} masquerade
${announced ? '' : '    iifname @uplinks oifname != @uplinks ip saddr @public_addresses masquerade\n'}  }
}
`
}
