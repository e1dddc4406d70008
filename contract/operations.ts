import Type, { type Static } from 'typebox'
import { generatedIdPattern } from './ids.ts'
import { operationResources, operationStatuses, operationTypes, stepNames, stepStatuses } from './operation-kinds.ts'
import { FilterText, listQuery, named, oneOf, pageOf, ref, strict, Timestamp } from './schema.ts'

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
