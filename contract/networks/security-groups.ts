import Type, { type Static } from 'typebox'
import { chosenIdPattern } from '../ids.ts'
import { Metadata, MetadataInput, MetadataPatch, named, oneOf, pageOf, ref, strict, textPattern } from '../schema.ts'

const Port = Type.Integer({ minimum: 0, maximum: 65_535 })

export const SecurityGroupRule = named(
  'SecurityGroupRule',
  Type.Object(
    {
      direction: oneOf(['ingress', 'egress']),
      protocol: oneOf(['tcp', 'udp', 'icmp', 'any']),
      port_from: Type.Optional(Port),
      port_to: Type.Optional(Port),
      remote: Type.Union([
        Type.Object({ cidr: Type.String({ maxLength: 18 }) }, strict),
        Type.Object({ security_group: Type.String({ pattern: chosenIdPattern('sg') }) }, strict),
      ]),
      description: Type.String({ maxLength: 255 }),
    },
    strict,
  ),
)
export type SecurityGroupRule = Static<typeof SecurityGroupRule>

export const SecurityGroup = named(
  'SecurityGroup',
  Type.Object(
    {
      id: Type.String({ pattern: chosenIdPattern('sg') }),
      metadata: ref(Metadata),
      spec: Type.Object({ description: Type.String(), rules: Type.Array(ref(SecurityGroupRule)) }, strict),
      status: Type.Object({ instances: Type.Integer() }, strict),
    },
    strict,
  ),
)
export type SecurityGroup = Static<typeof SecurityGroup>

export const SecurityGroupList = named('SecurityGroupList', pageOf(SecurityGroup))

const Rules = Type.Array(ref(SecurityGroupRule), { maxItems: 200 })
const Description = Type.String({ maxLength: 255, pattern: textPattern })

export const SecurityGroupCreate = named(
  'SecurityGroupCreate',
  Type.Object(
    {
      id: Type.Optional(Type.String({ pattern: chosenIdPattern('sg') })),
      metadata: Type.Optional(MetadataInput),
      spec: Type.Optional(
        Type.Object({ description: Type.Optional(Description), rules: Type.Optional(Rules) }, strict),
      ),
    },
    strict,
  ),
)
export type SecurityGroupCreate = Static<typeof SecurityGroupCreate>

/** `rules` replaces all of them. */
export const SecurityGroupPatch = named(
  'SecurityGroupPatch',
  Type.Object(
    {
      metadata: Type.Optional(MetadataPatch),
      spec: Type.Optional(
        Type.Object({ description: Type.Optional(Description), rules: Type.Optional(Rules) }, strict),
      ),
    },
    strict,
  ),
)
export type SecurityGroupPatch = Static<typeof SecurityGroupPatch>
