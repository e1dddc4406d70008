import Type, { type Static } from 'typebox'
import { chosenIdPattern } from '../ids.ts'
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
} from '../schema.ts'
import { Cidr } from './vpcs.ts'

const SubnetId = Type.String({ pattern: chosenIdPattern('subnet') })
const VpcId = Type.String({ pattern: chosenIdPattern('vpc') })
const AutoAssign = Type.Boolean({
  description: 'Whether each instance that is created there gets a public address; false unless given',
})

/** Addresses at the start of a subnet that no instance gets: network, gateway and two kept for services. */
export const reservedAtStart = 4

export const SubnetCreate = named(
  'SubnetCreate',
  Type.Object(
    {
      id: Type.Optional(SubnetId),
      metadata: Type.Optional(MetadataInput),
      spec: Type.Object({ vpc_id: VpcId, cidr: Cidr, auto_assign_public_ip: Type.Optional(AutoAssign) }, strict),
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
      spec: Type.Object({ vpc_id: VpcId, cidr: Cidr, auto_assign_public_ip: AutoAssign }, strict),
      status: Type.Object({ gateway: Type.String(), available_addresses: Type.Integer() }, strict),
    },
    strict,
  ),
)
export type Subnet = Static<typeof Subnet>

export const SubnetList = named('SubnetList', pageOf(Subnet))

export const SubnetPatch = named(
  'SubnetPatch',
  Type.Object(
    {
      metadata: Type.Optional(MetadataPatch),
      spec: Type.Optional(Type.Object({ auto_assign_public_ip: Type.Optional(AutoAssign) }, strict)),
    },
    strict,
  ),
)
export type SubnetPatch = Static<typeof SubnetPatch>

export const SubnetListQuery = Type.Object({ ...resourceListQuery, vpc_id: Type.Optional(FilterText) }, strict)
