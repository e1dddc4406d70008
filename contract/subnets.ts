import Type, { type Static } from 'typebox'
import { chosenIdPattern } from './ids.ts'
import {
  FilterText,
  Metadata,
  MetadataInput,
  MetadataPatch,
  named,
  pageOf,
  ref,
  resourceListQuery,
  strict,
} from './schema.ts'
import { Cidr } from './vpcs.ts'

const SubnetId = Type.String({ pattern: chosenIdPattern('subnet') })
const VpcId = Type.String({ pattern: chosenIdPattern('vpc') })

/** Addresses at the start of a subnet that no instance gets: network, gateway and two kept for services. */
export const reservedAtStart = 4

export const SubnetCreate = named(
  'SubnetCreate',
  Type.Object(
    {
      id: Type.Optional(SubnetId),
      metadata: Type.Optional(MetadataInput),
      spec: Type.Object({ vpc_id: VpcId, cidr: Cidr }, strict),
    },
    strict,
  ),
)
export type SubnetCreate = Static<typeof SubnetCreate>

export const Subnet = named(
  'Subnet',
  Type.Object(
    {
      id: SubnetId,
      metadata: ref(Metadata),
      spec: Type.Object({ vpc_id: VpcId, cidr: Cidr }, strict),
      status: Type.Object({ gateway: Type.String(), available_addresses: Type.Integer() }, strict),
    },
    strict,
  ),
)
export type Subnet = Static<typeof Subnet>

export const SubnetList = named('SubnetList', pageOf(Subnet))

export const SubnetPatch = named('SubnetPatch', Type.Object({ metadata: Type.Optional(MetadataPatch) }, strict))
export type SubnetPatch = Static<typeof SubnetPatch>

export const SubnetListQuery = Type.Object({ ...resourceListQuery, vpc_id: Type.Optional(FilterText) }, strict)
