import { graceSeconds } from '@berth/contract/instances/bounds.ts'
import type { PowerActionBody } from '@berth/contract/instances/instances.ts'
import { type InstanceAction, permittedActions } from '@berth/contract/instances/states.ts'
import type { OperationType } from '@berth/contract/operation-kinds.ts'
import { ApiError } from '../../api-error.ts'
import type { Context } from '../../context.ts'
import {
  getInstance,
  type InstanceIntent,
  type StoredInstance,
  stateOf,
  updateIntent,
  updateLatestOperation,
} from '../../store/instances/instances.ts'
import { findLastOperation, listOpenOperations } from '../../store/operations.ts'
import type { Transaction } from '../../store/transaction.ts'
import { openOperation } from '../operations.ts'
import { settleInstance } from './settlement.ts'

/** Ask that an instance runs, stops or boots anew. Gives the id of the operation to follow. */
export async function actOnInstance(
  ctx: Context,
  tx: Transaction,
  id: string,
  action: InstanceAction,
  body: PowerActionBody,
): Promise<string> {
  const grace = body.force === true ? 0 : (body.grace_seconds ?? graceSeconds.default)
  const instance = await getInstance(tx.db, id)
  const permitted: readonly InstanceAction[] = permittedActions[instance.desired]
  if (!permitted.includes(action)) {
    throw new ApiError('invalid_state', `Instance ${id} is ${stateOf(instance)}; it cannot ${action} now.`)
  }
  return changePower(ctx, tx, instance, intentOf(instance, action, grace), `instance.${action}`, grace)
}

/**
 * Ask that an instance and all it uses go away; possible in every state. Gives the id of the deletion that is under way,
 * or has succeeded. One that failed, as by its deadline, is begun anew: its host tries again from the start.
 */
export async function deleteInstance(ctx: Context, id: string, grace: number): Promise<string> {
  return ctx.store.writeMakingRoom(async (tx) => {
    const instance = await getInstance(tx.db, id)
    const last = await findLastOperation(tx.db, id, 'instance.delete')
    if (last !== null && (last.finished_at === null || instance.terminated_at !== null)) {
      const more = instance.terminated_at === null && grace < instance.grace_seconds
      if (more) await updateIntent(tx, instance, { grace_seconds: grace })
      return last.id
    }
    const anew: InstanceIntent = { grace_seconds: Math.min(grace, instance.grace_seconds) }
    const intent: InstanceIntent =
      instance.desired !== 'deleted'
        ? { desired: 'deleted', grace_seconds: grace, reason: 'deleted', message: '' }
        : last === null
          ? {}
          : anew
    return changePower(ctx, tx, instance, intent, 'instance.delete', grace)
  })
}

function intentOf(instance: StoredInstance, action: InstanceAction, grace: number): InstanceIntent {
  switch (action) {
    case 'start':
      return runsAsWanted(instance) ? {} : { desired: 'running', reason: '', message: '' }
    case 'stop':
      // a second stop is a new intent only when it is more urgent than the first
      return instance.desired === 'stopped' && grace >= instance.grace_seconds
        ? {}
        : { desired: 'stopped', grace_seconds: grace, reason: '', message: '' }
    case 'reboot':
      return { reboots: instance.reboots + 1, reboot_grace_seconds: grace }
  }
}

/**
 * Whether an instance is to run, and is not known to be off. Its guest may have powered off under an intent that was
 * replaced before its host said so: then nothing follows from that yet, and a start is a new intent.
 */
function runsAsWanted({ desired, report }: StoredInstance): boolean {
  return desired === 'running' && !(report?.power === 'off' && report.off_cause === 'guest')
}

/** Store an intent with its operation; an empty intent asks for what is wanted already, or is done. */
async function changePower(
  ctx: Context,
  tx: Transaction,
  instance: StoredInstance,
  intent: InstanceIntent,
  type: OperationType,
  grace: number,
): Promise<string> {
  const now = ctx.now()
  const changes = Object.keys(intent).length > 0
  const generation = changes ? instance.generation + 1 : instance.generation
  if (!changes) {
    const [open] = await listOpenOperations(tx.db, instance.id)
    if (open !== undefined && instance.desired !== 'deleted') return open.id
  }
  const operation = await openOperation(ctx, tx, {
    type,
    resourceId: instance.id,
    generation,
    graceSeconds: type === 'instance.start' ? 0 : grace,
  })
  if (!changes) {
    await updateLatestOperation(tx, instance, operation.id)
    // it has succeeded already only if what is wanted is so: a VMM may have died, a stop may have run out of time
    await settleInstance(tx, { ...instance, operation_id: operation.id }, now)
    return operation.id
  }
  const wanted = await updateIntent(tx, instance, { ...intent, operation_id: operation.id })
  await settleInstance(tx, wanted, now)
  return operation.id
}
