import { failureCatalogue } from '@berth/contract/errors.ts'
import { newId } from '@berth/contract/ids.ts'
import { hasEnded, type OperationType, operationKinds } from '@berth/contract/operation-kinds.ts'
import type { Operation, OperationError } from '@berth/contract/operations.ts'
import { toRfc3339, toRfc3339Millis } from '@berth/contract/units.ts'
import { type Context, deadlineMs } from '../context.ts'
import { waitForChange } from '../feed/waiting.ts'
import {
  getOperation,
  insertOperation,
  listOpenOperations,
  listOperations,
  type OperationFilter,
  updateOperation,
} from '../store/operations.ts'
import { type Listed, mapListed, type Page } from '../store/resource-list.ts'
import type { StoredOperation } from '../store/schema.ts'
import type { Transaction } from '../store/transaction.ts'

/**
 * Open an operation on a resource, in the transaction of the intent it brings about. An open one it replaces is
 * cancelled and names it. `graceSeconds` lengthens the deadline by the time a guest is given.
 */
export async function openOperation(
  ctx: Context,
  tx: Transaction,
  about: { type: OperationType; resourceId: string; generation: number; graceSeconds: number },
): Promise<StoredOperation> {
  const now = ctx.now()
  const operation: StoredOperation = {
    id: newId('op', now),
    type: about.type,
    resource_id: about.resourceId,
    status: 'pending',
    steps: operationKinds[about.type].steps.map((name) => ({
      name,
      status: 'pending',
      attempt: 0,
      started_at: null,
      finished_at: null,
      error: null,
    })),
    error: null,
    generation: about.generation,
    created_at: now,
    deadline_at: now + deadlineMs(ctx.settings, about.type, about.graceSeconds),
    finished_at: null,
  }
  // what is only being made has none
  const replaced = about.type === 'instance.create' ? [] : await listOpenOperations(tx.db, about.resourceId)
  for (const open of replaced) {
    const error = failure('superseded', `${operation.id} (${operation.type}) replaced this operation.`, false)
    await updateOperation(tx, endOperation(open, 'cancelled', now, error))
  }
  await insertOperation(tx, operation)
  tx.afterCommit(() => {
    const { id, type, resource_id } = operation
    const request = ctx.requestId === '' ? {} : { request_id: ctx.requestId }
    ctx.log.info({ ...request, operation_id: id, operation_type: type, instance_id: resource_id }, 'operation opened')
  })
  return operation
}

/** An error of the failure catalogue, with its hint. */
export function failure(code: string, message: string, retryable: boolean): OperationError {
  const hints: Readonly<Record<string, string>> = failureCatalogue
  return { code, message, retryable, hint: hints[code] ?? '' }
}

/**
 * The operation as it ends: with success every step has succeeded; otherwise the step that was running carries the
 * error and those behind it are cancelled. Pure.
 */
export function endOperation(
  operation: StoredOperation,
  status: 'succeeded' | 'failed' | 'cancelled',
  now: number,
  error: OperationError | null = null,
): StoredOperation {
  let blamed = status === 'succeeded'
  const steps = operation.steps.map((step) => {
    if (step.status === 'succeeded') return step
    if (status === 'succeeded') {
      return { ...step, status, started_at: step.started_at ?? now, finished_at: now, error: null }
    }
    if (blamed) return { ...step, status: 'cancelled' as const }
    blamed = true
    return {
      ...step,
      status,
      finished_at: now,
      error: error === null ? null : { code: error.code, message: error.message },
    }
  })
  return { ...operation, status, steps, error, finished_at: now }
}

/** The operation, at once or, with `waitSeconds`, when it ended or the time is over. */
export async function readOperation(
  ctx: Context,
  id: string,
  waitSeconds: number | undefined,
  signal: AbortSignal,
): Promise<Operation> {
  const operation = await waitForChange(ctx.store, [id], {
    slots: ctx.waitSlots,
    timeoutMs: (waitSeconds ?? 0) * 1000,
    signal,
    read: (db) => getOperation(db, id),
    done: (current) => hasEnded(current.status),
  })
  return operationDocument(operation)
}

/** A page of operations, newest first. */
export async function readOperations(ctx: Context, filter: OperationFilter, page: Page): Promise<Listed<Operation>> {
  return mapListed(await listOperations(ctx.store.read, filter, page), operationDocument)
}

/** An operation as the API shows it. */
export function operationDocument(operation: StoredOperation): Operation {
  return {
    id: operation.id,
    type: operation.type,
    resource_type: operationKinds[operation.type].resource_type,
    resource_id: operation.resource_id,
    status: operation.status,
    steps: operation.steps.map((step) => ({
      ...step,
      started_at: step.started_at === null ? null : toRfc3339Millis(step.started_at),
      finished_at: step.finished_at === null ? null : toRfc3339Millis(step.finished_at),
    })),
    error: operation.error,
    created_at: toRfc3339(operation.created_at),
    finished_at: operation.finished_at === null ? null : toRfc3339(operation.finished_at),
  }
}
