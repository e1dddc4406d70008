import type { Nic } from '../instance-record.ts'
import { runCommand } from '../run-command.ts'
import { gatewayMac, tapMtu } from './names.ts'
import { inNamespace, ipBatch, listLinks } from './namespace.ts'

/**
 * Have the tap of an instance: owned by the uid of its VMM, the gateway's address on it, the route and the neighbour
 * entry of its one guest. Idempotent.
 */
export async function ensureTap(namespace: string, nic: Nic, options: { signal?: AbortSignal } = {}): Promise<void> {
  const exists = (await listLinks(namespace, options)).includes(nic.tap)
  const lines = [
    ...(exists ? [] : [`tuntap add dev ${nic.tap} mode tap vnet_hdr user ${nic.uid}`]),
    `link set ${nic.tap} address ${gatewayMac} mtu ${tapMtu} up`,
    `addr replace ${nic.gateway}/32 dev ${nic.tap}`,
    `route replace ${nic.ip}/32 dev ${nic.tap}`,
    `neigh replace ${nic.ip} lladdr ${nic.mac} dev ${nic.tap} nud permanent`,
  ]
  await ipBatch(namespace, lines, options)
  // the default delays the first proxy-ARP answer by up to 0.8 s
  await runCommand(
    [...inNamespace(namespace), 'sysctl', '-q', '-w', `net.ipv4.neigh.${nic.tap}.proxy_delay=0`],
    options,
  )
}

/** Remove a tap with its address, route and neighbour entry. Idempotent. */
export async function removeTap(namespace: string, tap: string, options: { signal?: AbortSignal } = {}): Promise<void> {
  if ((await listLinks(namespace, options)).includes(tap)) await ipBatch(namespace, [`link del ${tap}`], options)
}
