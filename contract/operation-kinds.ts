import type { EventResource } from './event-kinds.ts'

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

/** Whether an operation in this status will not change any more. */
export function hasEnded(status: OperationStatus): boolean {
  return status === 'succeeded' || status === 'failed' || status === 'cancelled'
}
