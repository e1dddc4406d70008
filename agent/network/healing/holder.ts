import { listProcesses } from '../../sys/process.ts'
import { netdevArgument } from '../names.ts'
import { findDnsmasq } from '../services/dnsmasq.ts'

/**
 * Pid of a process that lives in the namespace of a VPC: the VMM of one of its taps, or its dnsmasq; null when there is
 * none, and then the namespace has gone as well. VMMs first: only theirs cannot be started in another one.
 */
export async function findHolder(dnsmasqDirectory: string, taps: readonly string[]): Promise<number | null> {
  for (const tap of taps) {
    const [vmm] = await listProcesses(['-netdev', netdevArgument(tap)])
    if (vmm !== undefined) return vmm.pid
  }
  return (await findDnsmasq(dnsmasqDirectory))?.pid ?? null
}
