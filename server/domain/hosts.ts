import type { Host } from '@berth/contract/hosts.ts'
import { toRfc3339 } from '@berth/contract/units.ts'
import type { Context } from '../context.ts'
import { getHost, listHosts, type StoredHost } from '../store/hosts.ts'

export async function readHost(ctx: Context, id: string): Promise<Host> {
  return document(ctx, await getHost(ctx.store.read, id))
}

export async function readHosts(ctx: Context): Promise<Host[]> {
  return (await listHosts(ctx.store.read)).map((host) => document(ctx, host))
}

/** Whether a host was heard of lately enough to be given work. */
export function isReady(ctx: Context, host: StoredHost): boolean {
  return ctx.now() - host.last_seen_at < ctx.settings.hostUnreachableMs
}

function document(ctx: Context, host: StoredHost): Host {
  return {
    id: host.id,
    metadata: { name: host.name, labels: host.labels, created_at: toRfc3339(host.created_at) },
    spec: { schedulable: host.schedulable === 1 },
    status: {
      state: isReady(ctx, host) ? 'ready' : 'unreachable',
      hypervisor: host.hypervisor,
      accelerator: host.accelerator,
      accelerator_reason: host.accelerator_reason,
      capacity: { vcpus: host.capacity_vcpus, memory_mb: host.capacity_memory_mb, disk_gb: host.capacity_disk_gb },
      allocated: {
        vcpus: host.allocated_vcpus,
        memory_mb: host.allocated_memory_mb,
        disk_gb: host.allocated_disk_gb,
      },
      last_seen_at: host.last_seen_at === 0 ? '' : toRfc3339(host.last_seen_at),
      agent_version: host.agent_version,
    },
  }
}
