import Type, { type Static } from 'typebox'
import { named, pageOf, strict } from '../schema.ts'

export const InstanceTypeSpec = Type.Object(
  {
    vcpus: Type.Integer({ minimum: 1, maximum: 256 }),
    memory_mb: Type.Integer({ minimum: 64, maximum: 4_194_304, description: 'MiB' }),
    disk_gb: Type.Integer({ minimum: 1, maximum: 65_536, description: 'GiB' }),
    bandwidth_mbps: Type.Integer({ minimum: 1, maximum: 1_000_000 }),
  },
  strict,
)

export const InstanceType = named(
  'InstanceType',
  Type.Object({ id: Type.String({ pattern: '^[a-z0-9][a-z0-9.-]{0,62}$' }), spec: InstanceTypeSpec }, strict),
)
export type InstanceType = Static<typeof InstanceType>

export const InstanceTypeList = named('InstanceTypeList', pageOf(InstanceType))
