/** MTU of every tap: room for VXLAN's 50 bytes on a 1500-byte underlay. */
export const tapMtu = 1450

/** MAC of the gateway on every tap of every host, so that a guest that moves keeps its neighbour entry. */
export const gatewayMac = '02:00:00:00:00:01'

/** Address of services inside every namespace (metadata, RFC 3927 link-local). */
export const serviceAddress = '169.254.169.254'

/** Addresses of a link alone (RFC 3927): those of the host's links, such as a cloud's metadata, are not its guests' business. */
export const linkLocalRange = '169.254.0.0/16'

/** Name of a namespace's end of its uplink; the host's end is named after the VPC (contract/hosts/names.ts). */
export const uplinkInside = 'up0'

/** Shared address space (RFC 6598), out of which each uplink gets a pair. */
export const uplinkRange = '100.64.0.0/10'

/** QEMU's argument that opens a tap, by which the process of a card is found, too. */
export function netdevArgument(tap: string): string {
  return `tap,id=nic0,ifname=${tap},script=no,downscript=no`
}

/**
 * Whom dnsmasq becomes, who has this number wherever systemd runs (systemd's "Users, Groups, UIDs and GIDs"): the rules of
 * a namespace let nobody but root and this user send from it.
 */
export const nameServerUser = { name: 'nobody', uid: 65_534 } as const
