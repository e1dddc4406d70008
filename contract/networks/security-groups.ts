import Type, { type Static } from 'typebox'
import { chosenIdPattern } from '../ids.ts'
import { Metadata, MetadataInput, MetadataPatch, named, oneOf, pageOf, ref, strict, textPattern } from '../schema.ts'

const port = { minimum: 0, maximum: 65_535 }

const ruleFields = {
  direction: oneOf(['ingress', 'egress']),
  protocol: oneOf(['tcp', 'udp', 'icmp', 'any']),
  port_from: Type.Optional(Type.Integer({ ...port, description: 'First port of tcp or udp; every port when absent' })),
  port_to: Type.Optional(Type.Integer({ ...port, description: 'Last port; the same as the first when absent' })),
  remote: Type.Union([
    Type.Object({ cidr: Type.String({ maxLength: 18 }) }, strict),
    Type.Object({ security_group: Type.String({ pattern: chosenIdPattern('sg') }) }, strict),
  ]),
}
const RuleDescription = Type.String({ maxLength: 255 })

/**
 * A rule as it is given. What it lets through has no default, lest a forgotten field opens more than was meant: from or
 * to anywhere is `0.0.0.0/0`, every protocol is `any`.
 */
export const SecurityGroupRuleInput = named(
  'SecurityGroupRuleInput',
  Type.Object({ ...ruleFields, description: Type.Optional(RuleDescription) }, strict),
)
export type SecurityGroupRuleInput = Static<typeof SecurityGroupRuleInput>

export const SecurityGroupRule = named(
  'SecurityGroupRule',
  Type.Object({ ...ruleFields, description: RuleDescription }, strict),
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

const Rules = Type.Array(ref(SecurityGroupRuleInput), { maxItems: 200 })
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
