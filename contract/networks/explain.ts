import Type, { type Static } from 'typebox'
import { generatedIdPattern } from '../ids.ts'
import { named, oneOf, ref, strict } from '../schema.ts'
import { SecurityGroupRule } from './security-groups.ts'

const addressPattern = '[0-9]{1,3}(?:[.][0-9]{1,3}){3}'
const instanceIdPattern = generatedIdPattern('inst').slice(1, -1)

/** An instance by its id, or an IPv4 address. */
const End = Type.String({
  pattern: `^(?:${instanceIdPattern}|${addressPattern})$`,
  maxLength: 32,
  description: 'Id of an instance, or an IPv4 address',
  examples: ['10.0.1.4', '203.0.113.7', '198.51.100.9'],
})

export const NetworkQuestion = named(
  'NetworkQuestion',
  Type.Object(
    {
      from: End,
      to: End,
      protocol: oneOf(['tcp', 'udp', 'icmp']),
      port: Type.Optional(
        Type.Integer({ minimum: 1, maximum: 65_535, description: 'Destination port; tcp and udp need one' }),
      ),
    },
    strict,
  ),
)
export type NetworkQuestion = Static<typeof NetworkQuestion>

/** Where a packet is looked at on its way. */
export const networkCheckPoints = ['route', 'egress', 'ingress', 'service'] as const

/** Why it passes there or does not. */
export const networkReasons = [
  'rule_allows',
  'no_rule_allows',
  'same_vpc',
  'by_public_address',
  'to_the_world',
  'other_vpc',
  'no_public_address',
  'address_without_instance',
  'address_of_the_vpc',
  'service_of_the_vpc',
  'no_such_service',
] as const

export const NetworkCheck = named(
  'NetworkCheck',
  Type.Object(
    {
      at: oneOf(networkCheckPoints),
      instance_id: Type.String({ description: 'Whose groups were asked; "" where no instance is asked' }),
      passes: Type.Boolean(),
      reason: oneOf(networkReasons),
      message: Type.String(),
      security_group: Type.String({ description: 'Group of the rule that allows it, "" when none does' }),
      rule_index: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()], { description: 'Place of that rule there' }),
      missing_rule: Type.Union([ref(SecurityGroupRule), Type.Null()], {
        description: 'A rule that would let it pass, in one of the groups of the instance; null when none is missing',
      }),
    },
    strict,
  ),
)

/** Whether packets that open such a connection arrive, and why; answers to them pass with it. */
export const NetworkExplanation = named(
  'NetworkExplanation',
  Type.Object(
    {
      allowed: Type.Boolean(),
      from: Type.Object({ instance_id: Type.String(), address: Type.String() }, strict),
      to: Type.Object({ instance_id: Type.String(), address: Type.String() }, strict),
      checks: Type.Array(ref(NetworkCheck), {
        description: 'In the order of the way; the first that does not pass ends it',
      }),
      notes: Type.Array(Type.String(), { description: 'What else may keep packets from arriving' }),
    },
    strict,
  ),
)
export type NetworkExplanation = Static<typeof NetworkExplanation>
export type NetworkCheck = Static<typeof NetworkCheck>
