import type { ObservedInstance, ObservedStep } from '@berth/contract/hosts/agent-protocol.ts'
import type { OperationType } from '@berth/contract/operation-kinds.ts'
import type { OperationError } from '@berth/contract/operations.ts'
import { release } from '../../store/hosts/hosts.ts'
import {
  type InstanceIntent,
  type StoredInstance,
  updateIntent,
  updateTerminated,
} from '../../store/instances/instances.ts'
import { freeAddress } from '../../store/networks/subnets.ts'
import { listOpenOperations, updateOperation } from '../../store/operations.ts'
import type { StoredOperation } from '../../store/schema.ts'
import type { Transaction } from '../../store/transaction.ts'
import { letGoOfPublicIp } from '../networks/public-address-holders.ts'
import { endOperation, failure } from '../operations.ts'

/**
 * What follows from an instance's intent and its host's report. Everything here happens in the transaction that stores
 * the report (or the intent), so nobody can see one without the other.
 *
 * | desired | report, of the current generation   | what follows                                                   |
 * |---------|-------------------------------------|----------------------------------------------------------------|
 * | any     | steps                               | copied to the open operation                                   |
 * | running | failure, while being created        | operation fails, desired = deleted with the cause              |
 * | running | failure, later                      | operation fails, desired = stopped with the cause              |
 * | running | off, by the guest or its panic      | create, start succeed (it ran); desired = stopped              |
 * | running | running                             | create and start succeed; reboot when its count is reached     |
 * | stopped | failure                             | stop fails with the cause; stopped stays wanted                |
 * | stopped | off, or never placed                | stop succeeds                                                  |
 * | deleted | absent (or never placed)            | terminated: addresses, reservation freed; delete succeeds      |
 */
export interface Settlement {
  intent: InstanceIntent | null
  operation: StoredOperation | null
  terminated: boolean
}

/** What a report of the current generation must say for an operation to have succeeded; a delete ends with its instance. */
const succeeds: Record<OperationType, (instance: StoredInstance, report: ObservedInstance) => boolean> = {
  'instance.create': (_, report) => hasRun(report),
  'instance.start': (_, report) => hasRun(report),
  'instance.reboot': ({ reboots }, report) => hasRun(report) && report.reboots >= reboots,
  'instance.stop': (_, report) => report.power === 'off',
  'instance.delete': () => false,
}

/** The CPUs run, or did until the guest ended that. */
function hasRun(report: ObservedInstance): boolean {
  return report.power === 'running' || wentOffByItself(report)
}

function wentOffByItself({ power, off_cause: cause }: ObservedInstance): boolean {
  return power === 'off' && (cause === 'guest' || cause === 'panic')
}

/** Decide what follows for an instance and its open operation (null: none). Pure. */
export function decideSettlement(instance: StoredInstance, operation: StoredOperation | null, now: number): Settlement {
  const report = instance.report
  const progressed = operation === null ? null : progressOperation(instance, operation)
  const absent = report?.power === 'absent' || instance.host_id === null
  if (instance.desired === 'deleted') {
    if (!absent) return { intent: null, operation: progressed, terminated: false }
    return { intent: null, operation: progressed && endOperation(progressed, 'succeeded', now), terminated: true }
  }
  const idle = instance.desired === 'stopped' && instance.host_id === null
  if (idle && progressed?.type === 'instance.stop') {
    return { intent: null, operation: endOperation(progressed, 'succeeded', now), terminated: false }
  }
  if (report === null || report.seen_generation !== instance.generation) {
    return { intent: null, operation: progressed, terminated: false }
  }
  const settled = () =>
    progressed !== null && succeeds[progressed.type](instance, report)
      ? endOperation(progressed, 'succeeded', now)
      : progressed
  if (instance.desired === 'stopped') {
    if (report.failure !== null && progressed !== null) {
      const { code, message, retryable } = report.failure
      const ended = endOperation(progressed, 'failed', now, failure(code, message, retryable))
      return { intent: null, operation: ended, terminated: false }
    }
    return { intent: null, operation: settled(), terminated: false }
  }
  if (report.failure !== null) {
    const { code, message, retryable } = report.failure
    const desired = operation?.type === 'instance.create' ? 'deleted' : 'stopped'
    return {
      intent: { desired, grace_seconds: 0, reason: code, message },
      operation: progressed && endOperation(progressed, 'failed', now, failure(code, message, retryable)),
      terminated: false,
    }
  }
  const intent = wentOffByItself(report) ? { desired: 'stopped' as const, ...causeOf(report) } : null
  return { intent, operation: settled(), terminated: false }
}

/** Why a machine is off that its host did not turn off for anybody. */
function causeOf(report: ObservedInstance): { reason: string; message: string } {
  if (report.off_cause === 'guest') return { reason: 'guest_shutdown', message: 'The guest powered itself off.' }
  const { reason, message } = report.conditions.Booted ?? { reason: 'guest_panicked', message: '' }
  return { reason, message }
}

/**
 * Carry out what follows for an instance whose intent or report was just stored in this transaction. Gives the instance
 * as it is afterwards.
 */
export async function settleInstance(tx: Transaction, instance: StoredInstance, now: number): Promise<StoredInstance> {
  const [open] = await listOpenOperations(tx.db, instance.id)
  const settlement = decideSettlement(instance, open ?? null, now)
  if (open !== undefined && settlement.operation !== null && !sameProgress(open, settlement.operation)) {
    await updateOperation(tx, settlement.operation)
  }
  let settled = instance
  if (settlement.intent !== null) {
    settled = await updateIntent(tx, settled, settlement.intent)
  }
  return settlement.terminated ? terminate(tx, settled, now) : settled
}

/**
 * End an operation whose deadline has passed. A create gives up its instance; the other operations only report that
 * they took too long, what is wanted stays wanted.
 */
export async function expireOperation(
  tx: Transaction,
  instance: StoredInstance | null,
  operation: StoredOperation,
  now: number,
): Promise<void> {
  const error = deadlineError(operation, instance)
  await updateOperation(tx, endOperation(operation, 'failed', now, error))
  if (instance === null || operation.type !== 'instance.create' || instance.desired === 'deleted') return
  const intent = { desired: 'deleted', grace_seconds: 0, reason: error.code, message: error.message } as const
  const deleted = await updateIntent(tx, instance, intent)
  await settleInstance(tx, deleted, now)
}

/** Give up an instance that was never placed, with the cause. */
export async function abandonUnplaced(
  tx: Transaction,
  instance: StoredInstance,
  error: OperationError,
  now: number,
): Promise<void> {
  for (const open of await listOpenOperations(tx.db, instance.id)) {
    await updateOperation(tx, endOperation(open, 'failed', now, error))
  }
  const intent = { desired: 'deleted', reason: error.code, message: error.message } as const
  await terminate(tx, await updateIntent(tx, instance, intent), now)
}

/** What did not end, and why as far as it is known: the last error of the step, or why no host took the instance. */
function deadlineError(operation: StoredOperation, instance: StoredInstance | null): OperationError {
  const step = operation.steps.find((candidate) => candidate.status !== 'succeeded')
  const seconds = Math.round((operation.deadline_at - operation.created_at) / 1000)
  const where = step === undefined ? '' : ` in step ${step.name}`
  const refusal = step?.name === 'schedule' ? instance?.refusal : undefined
  const why = step?.error?.message || refusal
  const message = `${operation.type} did not end within ${seconds} s${where}${why ? `: ${why}` : '.'}`
  return failure('deadline_exceeded', message, true)
}

async function terminate(tx: Transaction, instance: StoredInstance, now: number): Promise<StoredInstance> {
  if (instance.terminated_at !== null) return instance
  await freeAddress(tx, instance.id, now)
  if (instance.public_ip !== '') await letGoOfPublicIp(tx, instance.id, now)
  if (instance.host_id !== null) {
    await release(tx, instance.host_id, instance)
  }
  return updateTerminated(tx, instance, now)
}

/** The operation with the steps its host has reported under this intent. */
function progressOperation(instance: StoredInstance, operation: StoredOperation): StoredOperation {
  const report = instance.report
  const reported = new Map<string, ObservedStep>()
  if (report !== null && report.seen_generation >= operation.generation) {
    for (const step of report.steps) reported.set(step.name, step)
  }
  const steps = operation.steps.map((step) => {
    if (step.name === 'schedule') {
      if (instance.scheduled_at === null || step.status === 'succeeded') return step
      return {
        ...step,
        status: 'succeeded' as const,
        attempt: 1,
        started_at: operation.created_at,
        finished_at: instance.scheduled_at,
      }
    }
    return reported.get(step.name) ?? step
  })
  const begun = steps.some((step) => step.status !== 'pending')
  return { ...operation, status: begun ? 'running' : operation.status, steps }
}

function sameProgress(a: StoredOperation, b: StoredOperation): boolean {
  return a.status === b.status && JSON.stringify(a.steps) === JSON.stringify(b.steps)
}
