import Type, { type Static } from 'typebox'
import type { EventResource } from './events.ts'
import { generatedIdPattern } from './ids.ts'
import { FilterText, listQuery, named, oneOf, pageOf, ref, strict, Timestamp } from './schema.ts'

export const operationStatuses = ['pending', 'running', 'succeeded', 'failed', 'cancelled'] as const
export type OperationStatus = (typeof operationStatuses)[number]

/** Names of the steps, in the order they run. */
export const stepNames = ['schedule', 'image', 'disk', 'network', 'shutdown', 'boot', 'clean-up'] as const
export type StepName = (typeof stepNames)[number]

/**
 * Every type of operation: the kind of resource it is on, and the steps it goes through, in order. A new type begins with
 * a line here; what the server has to know of it besides is in `resourceKinds` (server/domain/resource-kinds.ts).
 */
export const operationKinds = {
  'instance.create': { resource_type: 'instance', steps: ['schedule', 'image', 'disk', 'network', 'boot'] },
  'instance.start': { resource_type: 'instance', steps: ['image', 'disk', 'network', 'boot'] },
  'instance.stop': { resource_type: 'instance', steps: ['shutdown'] },
  'instance.reboot': { resource_type: 'instance', steps: ['shutdown', 'boot'] },
  'instance.delete': { resource_type: 'instance', steps: ['shutdown', 'clean-up'] },
} as const satisfies Record<`${EventResource}.${string}`, { resource_type: EventResource; steps: readonly StepName[] }>
export type OperationType = keyof typeof operationKinds
/** The kinds of resources that have operations. */
export type OperationResource = (typeof operationKinds)[OperationType]['resource_type']

export const operationTypes = Object.keys(operationKinds) as OperationType[]
export const operationResources = [...new Set(Object.values(operationKinds).map((kind) => kind.resource_type))]

export const stepStatuses = ['pending', 'running', 'succeeded', 'failed', 'cancelled'] as const
export type StepStatus = (typeof stepStatuses)[number]

const NullableTimestamp = Type.Union([Timestamp, Type.Null()])

export const OperationStep = named(
  'OperationStep',
  Type.Object(
    {
      name: oneOf(stepNames),
      status: oneOf(stepStatuses),
      attempt: Type.Integer({ minimum: 0, description: '0 before the first attempt' }),
      started_at: NullableTimestamp,
      finished_at: NullableTimestamp,
      error: Type.Union([Type.Object({ code: Type.String(), message: Type.String() }, strict), Type.Null()]),
    },
    strict,
  ),
)
export type OperationStep = Static<typeof OperationStep>

export const OperationError = named(
  'OperationError',
  Type.Object(
    {
      code: Type.String(),
      message: Type.String(),
      retryable: Type.Boolean({ description: 'Whether the same request may succeed later' }),
      hint: Type.String({ description: 'What the caller can do' }),
    },
    strict,
  ),
)
export type OperationError = Static<typeof OperationError>

export const Operation = named(
  'Operation',
  Type.Object(
    {
      id: Type.String({ pattern: generatedIdPattern('op') }),
      type: oneOf(operationTypes),
      resource_type: oneOf(operationResources),
      resource_id: Type.String(),
      status: oneOf(operationStatuses),
      steps: Type.Array(ref(OperationStep)),
      error: Type.Union([ref(OperationError), Type.Null()]),
      created_at: Timestamp,
      finished_at: NullableTimestamp,
    },
    strict,
  ),
)
export type Operation = Static<typeof Operation>

export const OperationList = named('OperationList', pageOf(Operation))

export const OperationGetQuery = Type.Object(
  {
    wait: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 600,
        description: 'Answer when the operation ended, or after this many seconds',
      }),
    ),
  },
  strict,
)

export const OperationListQuery = Type.Object(
  {
    ...listQuery,
    resource_type: Type.Optional(oneOf(operationResources)),
    resource_id: Type.Optional(FilterText),
    type: Type.Optional(oneOf(operationTypes)),
    status: Type.Optional(oneOf(operationStatuses)),
  },
  strict,
)

/** Whether an operation in this status will not change any more. */
export function hasEnded(status: OperationStatus): boolean {
  return status === 'succeeded' || status === 'failed' || status === 'cancelled'
}
