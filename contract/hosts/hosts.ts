import Type, { type Static } from 'typebox'
import { generatedIdPattern } from '../ids.ts'
import { Metadata, MetadataPatch, named, oneOf, pageOf, ref, strict, TimestampOrEmpty } from '../schema.ts'

export const Capacity = named(
  'Capacity',
  Type.Object(
    {
      vcpus: Type.Integer({ minimum: 0 }),
      memory_mb: Type.Integer({ minimum: 0, description: 'MiB' }),
      disk_gb: Type.Integer({ minimum: 0, description: 'GiB' }),
    },
    strict,
  ),
)
export type Capacity = Static<typeof Capacity>

export const Host = named(
  'Host',
  Type.Object(
    {
      id: Type.String({ pattern: generatedIdPattern('host') }),
      metadata: ref(Metadata),
      spec: Type.Object({ schedulable: Type.Boolean() }, strict),
      status: Type.Object(
        {
          state: oneOf(['ready', 'unreachable']),
          hypervisor: Type.String({ description: 'qemu, or simulated: then no instance is a real machine' }),
          accelerator: Type.String({ description: 'kvm, tcg (emulation), or none' }),
          accelerator_reason: Type.String({ description: 'Why this accelerator' }),
          capacity: ref(Capacity),
          allocated: ref(Capacity),
          last_seen_at: TimestampOrEmpty,
          agent_version: Type.String(),
        },
        strict,
      ),
    },
    strict,
  ),
)
export type Host = Static<typeof Host>

export const HostList = named('HostList', pageOf(Host))

/** `schedulable: false` cordons a host: what runs there runs on, nothing new is placed there. */
export const HostPatch = named(
  'HostPatch',
  Type.Object(
    {
      metadata: Type.Optional(MetadataPatch),
      spec: Type.Optional(Type.Object({ schedulable: Type.Optional(Type.Boolean()) }, strict)),
    },
    strict,
  ),
)
export type HostPatch = Static<typeof HostPatch>
