import Type, { type Static } from 'typebox'
import { chosenIdPattern } from './ids.ts'
import { Metadata, named, oneOf, ref, strict } from './schema.ts'

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

export const SecurityGroupList = named(
  'SecurityGroupList',
  Type.Object({ items: Type.Array(ref(SecurityGroup)) }, strict),
)
