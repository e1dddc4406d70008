import Type, { type Static } from 'typebox'
import { generatedIdPattern } from '../ids.ts'
import { named, strict, TimestampOrEmpty } from '../schema.ts'

const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })

/**
 * What an instance used, as its host counts it. Totals count from the start of its VMM, those of the network from the
 * making of its tap, and begin at 0 again with a new one. Received is what comes to the guest, sent what comes from it.
 */
const figures = {
  cpu_ms: Count,
  memory_bytes: Count,
  disk_allocated_bytes: Count,
  disk_read_bytes: Count,
  disk_written_bytes: Count,
  received_bytes: Count,
  received_packets: Count,
  sent_bytes: Count,
  sent_packets: Count,
} as const

/** The figures of one instance in a host's report; `at` is milliseconds UTC. */
export const ObservedUsage = Type.Object(
  { id: Type.String({ pattern: generatedIdPattern('inst') }), at: Type.Integer({ minimum: 0 }), ...figures },
  strict,
)
export type ObservedUsage = Static<typeof ObservedUsage>

const total = (description: string) => Type.Integer({ minimum: 0, description })

/** What `GET /v1/instances/{id}/metrics` answers. */
export const InstanceMetrics = named(
  'InstanceMetrics',
  Type.Object(
    {
      instance_id: Type.String(),
      at: TimestampOrEmpty,
      cpu: Type.Object(
        { seconds_total: Type.Number({ minimum: 0, description: 'Of the host; of all vCPUs' }) },
        strict,
      ),
      memory: Type.Object({ resident_bytes: total('Of the host that its VMM holds') }, strict),
      disk: Type.Object(
        {
          allocated_bytes: total('Of the host that its disk takes'),
          read_bytes_total: total('Read by the guest'),
          written_bytes_total: total('Written by the guest'),
        },
        strict,
      ),
      network: Type.Object(
        {
          received_bytes_total: total('To the guest'),
          received_packets_total: total('To the guest'),
          sent_bytes_total: total('From the guest, also what rules dropped'),
          sent_packets_total: total('From the guest, also what rules dropped'),
        },
        strict,
      ),
    },
    strict,
  ),
)
export type InstanceMetrics = Static<typeof InstanceMetrics>
