import Type, { type Static } from 'typebox'
import { chosenIdPattern } from '../ids.ts'
import { Metadata, MetadataInput, MetadataPatch, named, pageOf, ref, strict } from '../schema.ts'

const VpcId = Type.String({ pattern: chosenIdPattern('vpc') })
export const Cidr = Type.String({
  maxLength: 18,
  description: 'IPv4 network in CIDR notation',
  examples: ['10.0.0.0/16', '10.0.2.0/24', '10.64.32.0/20', '192.168.7.0/24'],
})

export const VpcCreate = named(
  'VpcCreate',
  Type.Object(
    {
      id: Type.Optional(VpcId),
      metadata: Type.Optional(MetadataInput),
      spec: Type.Object({ cidr: Cidr }, strict),
    },
    strict,
  ),
)
export type VpcCreate = Static<typeof VpcCreate>

export const Vpc = named(
  'Vpc',
  Type.Object(
    {
      id: VpcId,
      metadata: ref(Metadata),
      spec: Type.Object({ cidr: Cidr }, strict),
      status: Type.Object({ subnets: Type.Integer(), instances: Type.Integer() }, strict),
    },
    strict,
  ),
)
export type Vpc = Static<typeof Vpc>

export const VpcList = named('VpcList', pageOf(Vpc))

export const VpcPatch = named('VpcPatch', Type.Object({ metadata: Type.Optional(MetadataPatch) }, strict))
export type VpcPatch = Static<typeof VpcPatch>
