import type { Context } from '../../context.ts'
import { deleteInstance, findInstance, listExpiredInstances } from '../../store/instances/instances.ts'
import type { StoredOperation } from '../../store/schema.ts'
import type { Transaction } from '../../store/transaction.ts'
import { expireOperation } from './settlement.ts'

/** Tombstones that one commit removes, with all that hangs on them; a pass removes as many such lots as there are. */
const lotSize = 50

/** Instances, as retention deals with them. */
export const instanceKind = {
  async expire(tx: Transaction, operation: StoredOperation, now: number): Promise<void> {
    await expireOperation(tx, await findInstance(tx.db, operation.resource_id), operation, now)
  },

  async removeTombstones({ store, now, settings }: Context): Promise<number> {
    const ids = await listExpiredInstances(store.read, now() - settings.tombstoneMs, lotSize)
    if (ids.length === 0) return 0
    await store.writeMakingRoom(async (tx) => {
      for (const id of ids) await deleteInstance(tx, id)
    })
    return ids.length
  },
}
