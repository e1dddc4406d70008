import type { OperationError } from '@berth/contract/operations.ts'
import type { Context } from '../context.ts'
import { placementCandidates } from '../domain/hosts/hosts.ts'
import { type Candidate, chooseHost, explainRefusals, explainTooLarge, refusal } from '../domain/instances/placement.ts'
import { abandonUnplaced, settleInstance } from '../domain/instances/settlement.ts'
import { failure } from '../domain/operations.ts'
import { type HostRoom, reserve } from '../store/hosts/hosts.ts'
import {
  listUnplacedInstances,
  type StoredInstance,
  updatePlacement,
  updateRefusal,
} from '../store/instances/instances.ts'
import type { Transaction } from '../store/transaction.ts'
import type { ControllerPass } from './driver.ts'

const batchSize = 100

/** More instances than this that wait for room are looked at all together at most once a second. */
const manyWaiting = 100
const allWaitingEveryMs = 1000

/**
 * Give waiting instances their hosts, oldest first; room is reserved by a conditional update in the same transaction.
 * Every commit wakes it: when many wait, the passes of the same second only look at those that came since.
 */
export function placementPass(ctx: Context): ControllerPass {
  let last = { at: Number.NEGATIVE_INFINITY, waiting: 0, after: '' }
  return async () => {
    const counts = { placed: 0, waiting: 0, abandoned: 0 }
    const at = performance.now()
    const whole = last.waiting <= manyWaiting || at - last.at >= allWaitingEveryMs
    let after = whole ? '' : last.after
    for (;;) {
      const [next] = await listUnplacedInstances(ctx.store.read, after, 1)
      if (next === undefined) break
      after = await ctx.store.write((tx) => placeBatch(ctx, tx, after, counts))
    }
    last = whole ? { at, waiting: counts.waiting, after } : { ...last, after }
    if (counts.placed === 0 && counts.abandoned === 0) return null
    return `placed ${counts.placed}, gave up ${counts.abandoned}, ${counts.waiting} wait for room`
  }
}

interface Counts {
  placed: number
  waiting: number
  abandoned: number
}

/** Go through the instances behind an id, one batch of them; gives the id to go on behind. */
async function placeBatch(ctx: Context, tx: Transaction, after: string, counts: Counts): Promise<string> {
  let candidates = await placementCandidates(ctx, tx.db, { withRoom: true })
  let complete = false
  const batch = await listUnplacedInstances(tx.db, after, batchSize)
  for (const instance of batch) {
    const host = chooseHost(candidates, instance)
    if (host !== null && (await reserve(tx, host.id, instance))) {
      await place(ctx, tx, instance, host)
      counts.placed++
      continue
    }
    if (!complete) {
      candidates = await placementCandidates(ctx, tx.db)
      complete = true
    }
    const hopeless = cause(candidates, instance)
    if (hopeless !== null) {
      await abandonUnplaced(tx, instance, hopeless, ctx.now())
      counts.abandoned++
    } else {
      const why = explainRefusals(candidates, instance)
      if (why !== instance.refusal) await updateRefusal(tx, instance, why)
      counts.waiting++
    }
  }
  return batch.at(-1)?.id ?? after
}

/** Why an instance that has no host now is given up, or null when it waits. */
function cause(candidates: readonly Candidate[], instance: StoredInstance): OperationError | null {
  if (candidates.length > 0 && candidates.every((candidate) => refusal(candidate, instance) === 'too_small')) {
    return failure('no_host_fits', explainTooLarge(candidates, instance), false)
  }
  if (instance.on_capacity === 'queue') return null
  return failure('no_capacity', explainRefusals(candidates, instance), true)
}

async function place(ctx: Context, tx: Transaction, instance: StoredInstance, host: HostRoom): Promise<void> {
  host.allocated_vcpus += instance.vcpus
  host.allocated_memory_mb += instance.memory_mb
  host.allocated_disk_gb += instance.disk_gb
  const placement = { host_id: host.id, scheduled_at: ctx.now() }
  await updatePlacement(tx, instance, placement)
  await settleInstance(tx, { ...instance, ...placement, refusal: '' }, ctx.now())
  const ids = { operation_id: instance.operation_id, instance_id: instance.id, host_id: host.id }
  tx.afterCommit(() => ctx.log.info(ids, 'placed'))
}
