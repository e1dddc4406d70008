import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Abortable, runCommand } from '../../sys/run-command.ts'
import { together } from '../../sys/together.ts'
import { inNamespace } from '../namespace.ts'
import type { Nic } from '../nic.ts'

/** Who had an address of dnsmasq last. */
export interface Lease {
  mac: string
  address: string
  /** Hexadecimal, `*` when the client gave none. */
  clientId: string
}

/** Where the dnsmasq of a directory keeps its leases. */
export function leaseFile(directory: string): string {
  return join(directory, 'leases')
}

/** Leases of IPv4 addresses as dnsmasq's lease file has them: expiry, MAC, address, host name, client id a line. Pure. */
export function parseLeases(text: string): Lease[] {
  const line = /^\d+ ([0-9a-f:]{17}) (\d+(?:\.\d+){3}) \S+ (\S+)$/gim
  return [...text.matchAll(line)].map(([, mac = '', address = '', clientId = '']) => ({ mac, address, clientId }))
}

/** The leases of addresses that a card has now which has another MAC: dnsmasq would keep them from it. Pure. */
export function staleLeases(leases: readonly Lease[], nics: readonly Nic[]): { lease: Lease; nic: Nic }[] {
  const holders = new Map(nics.map((nic) => [nic.ip, nic]))
  return leases.flatMap((lease) => {
    const nic = holders.get(lease.address)
    return nic === undefined || nic.mac === lease.mac ? [] : [{ lease, nic }]
  })
}

/** The stale leases of the dnsmasq of a directory. */
export async function findStaleLeases(directory: string, nics: readonly Nic[]): Promise<{ lease: Lease; nic: Nic }[]> {
  return staleLeases(parseLeases(await readFile(leaseFile(directory), 'utf8').catch(() => '')), nics)
}

/**
 * Have dnsmasq forget whoever had the addresses of these cards before: it gives an address to its new holder only when
 * the lease of the one before has ended, which without a word lasts up to an hour. The word is the one that the guest
 * before could have said itself (DHCPRELEASE, RFC 2131), said by dhcp_release(1) of dnsmasq. Their taps must be there.
 */
export async function releaseStaleLeases(
  namespace: string,
  directory: string,
  nics: readonly Nic[],
  options: Abortable,
): Promise<void> {
  const stale = await findStaleLeases(directory, nics)
  const release = ({ lease, nic }: (typeof stale)[number]) => {
    const argv = ['dhcp_release', nic.tap, lease.address, lease.mac, lease.clientId]
    return runCommand([...inNamespace(namespace), ...argv], options)
  }
  await together(...stale.map(release))
}
