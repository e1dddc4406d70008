import type { Refusal } from '@berth/contract/instances/instances.ts'
import type { HostRoom, Size } from '../../store/hosts/hosts.ts'

/** A host, and whether it was heard of lately. */
export interface Candidate {
  host: HostRoom
  ready: boolean
}

/** Why a host cannot take an instance of a size now, or null. Pure. */
export function refusal({ host, ready }: Candidate, size: Size): Refusal | null {
  if (
    size.vcpus > host.capacity_vcpus ||
    size.memory_mb > host.capacity_memory_mb ||
    size.disk_gb > host.capacity_disk_gb
  ) {
    return 'too_small'
  }
  if (!ready) return 'unreachable'
  if (host.schedulable !== 1) return 'cordoned'
  if (host.allocated_vcpus + size.vcpus > host.capacity_vcpus) return 'no_vcpus'
  if (host.allocated_memory_mb + size.memory_mb > host.capacity_memory_mb) return 'no_memory'
  if (host.allocated_disk_gb + size.disk_gb > host.capacity_disk_gb) return 'no_disk'
  return null
}

/**
 * Choose the host for an instance of a size, or null when none has room. Ties and all else go to the fullest host by
 * reserved memory, so that empty ones can be drained. Pure.
 */
export function chooseHost(candidates: readonly Candidate[], size: Size): HostRoom | null {
  const fitting = candidates.filter((candidate) => refusal(candidate, size) === null).map(({ host }) => host)
  const free = (host: HostRoom) => host.capacity_memory_mb - host.allocated_memory_mb
  return fitting.sort((a, b) => free(a) - free(b) || (a.id < b.id ? -1 : 1))[0] ?? null
}

/** How many hosts refuse an instance of a size for each reason, the commonest first. Pure. */
export function countRefusals(candidates: readonly Candidate[], size: Size): { reason: Refusal; hosts: number }[] {
  const counts = new Map<Refusal, number>()
  for (const candidate of candidates) {
    const why = refusal(candidate, size)
    if (why !== null) counts.set(why, (counts.get(why) ?? 0) + 1)
  }
  return [...counts].map(([reason, hosts]) => ({ reason, hosts })).sort((a, b) => b.hosts - a.hosts)
}

/** The refusals for people. Pure. */
export function explainRefusals(candidates: readonly Candidate[], size: Size): string {
  if (candidates.length === 0) return 'No host has connected yet.'
  const reasons = countRefusals(candidates, size).map(({ reason, hosts }) => `${reason}: ${hosts}`)
  return `${candidates.length} ${candidates.length === 1 ? 'host' : 'hosts'} refused (${reasons.join(', ')}).`
}

/** Why no host could take an instance of a size even when empty. Pure. */
export function explainTooLarge(candidates: readonly Candidate[], size: Size): string {
  const largest = candidates.map(
    ({ host }) => `${host.capacity_vcpus} vCPU, ${host.capacity_memory_mb} MiB, ${host.capacity_disk_gb} GiB`,
  )
  return `${size.vcpus} vCPU, ${size.memory_mb} MiB and ${size.disk_gb} GiB fit on no host, even empty: ${largest.join('; ')}.`
}
