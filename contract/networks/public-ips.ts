import Type, { type Static } from 'typebox'
import { chosenIdPattern, optionalIdPattern } from '../ids.ts'
import {
  FilterText,
  Metadata,
  MetadataInput,
  MetadataPatch,
  named,
  namePattern,
  pageOf,
  ref,
  resourceListQuery,
  strict,
} from '../schema.ts'

const PublicIpId = Type.String({ pattern: chosenIdPattern('pip') })
const Pool = Type.String({
  pattern: namePattern,
  maxLength: 63,
  description: 'Pool the address is from; the first one of the server when absent',
})
const InstanceRef = Type.String({
  pattern: optionalIdPattern('inst'),
  maxLength: 25,
  description: 'Instance that is reached by the address, "" for none',
})

export const PublicIpCreate = named(
  'PublicIpCreate',
  Type.Object(
    {
      id: Type.Optional(PublicIpId),
      metadata: Type.Optional(MetadataInput),
      spec: Type.Optional(Type.Object({ pool: Type.Optional(Pool), instance_id: Type.Optional(InstanceRef) }, strict)),
    },
    strict,
  ),
)
export type PublicIpCreate = Static<typeof PublicIpCreate>

export const PublicIp = named(
  'PublicIp',
  Type.Object(
    {
      id: PublicIpId,
      metadata: ref(Metadata),
      spec: Type.Object({ pool: Type.String(), instance_id: InstanceRef }, strict),
      status: Type.Object(
        {
          address: Type.String({ description: 'IPv4 address' }),
          auto_assigned: Type.Boolean({
            description: 'Came with its instance and goes with it; false once a caller attached or detached it',
          }),
        },
        strict,
      ),
    },
    strict,
  ),
)
export type PublicIp = Static<typeof PublicIp>

export const PublicIpList = named('PublicIpList', pageOf(PublicIp))

/** `instance_id` attaches the address, taking it from the instance that has it; "" detaches it. */
export const PublicIpPatch = named(
  'PublicIpPatch',
  Type.Object(
    {
      metadata: Type.Optional(MetadataPatch),
      spec: Type.Optional(Type.Object({ instance_id: Type.Optional(InstanceRef) }, strict)),
    },
    strict,
  ),
)
export type PublicIpPatch = Static<typeof PublicIpPatch>

export const PublicIpListQuery = Type.Object(
  { ...resourceListQuery, instance_id: Type.Optional(FilterText), pool: Type.Optional(FilterText) },
  strict,
)
