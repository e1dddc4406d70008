import type { InstanceMetrics, ObservedUsage } from '@berth/contract/instances/usage.ts'
import { toRfc3339 } from '@berth/contract/units.ts'
import type { Context } from '../../context.ts'
import { getInstance } from '../../store/instances/instances.ts'
import { listUsageOfHost } from '../../store/instances/usage.ts'

/** What an instance uses, as its host last counted it. Throws not_found. */
export async function readInstanceMetrics(ctx: Context, id: string): Promise<InstanceMetrics> {
  const { host_id: hostId } = await getInstance(ctx.store.read, id)
  const figures = hostId === null ? [] : await listUsageOfHost(ctx.store.read, hostId)
  return document(id, figures.find((usage) => usage.id === id) ?? null)
}

/** All is 0 of an instance that did not run when its host last looked, and `at` is "". */
function document(id: string, usage: ObservedUsage | null): InstanceMetrics {
  return {
    instance_id: id,
    at: usage === null ? '' : toRfc3339(usage.at),
    cpu: { seconds_total: (usage?.cpu_ms ?? 0) / 1000 },
    memory: { resident_bytes: usage?.memory_bytes ?? 0 },
    disk: {
      allocated_bytes: usage?.disk_allocated_bytes ?? 0,
      read_bytes_total: usage?.disk_read_bytes ?? 0,
      written_bytes_total: usage?.disk_written_bytes ?? 0,
    },
    network: {
      received_bytes_total: usage?.received_bytes ?? 0,
      received_packets_total: usage?.received_packets ?? 0,
      sent_bytes_total: usage?.sent_bytes ?? 0,
      sent_packets_total: usage?.sent_packets ?? 0,
    },
  }
}
