import type { OperationResource } from '@berth/contract/operation-kinds.ts'
import type { Context } from '../context.ts'
import type { StoredOperation } from '../store/schema.ts'
import type { Transaction } from '../store/transaction.ts'
import { instanceKind } from './instances/kind.ts'

/** What time brings about for a kind of resource that has operations. */
export interface ResourceKind {
  /** End an operation whose deadline has passed, with what follows from that, in the caller's transaction. */
  expire(tx: Transaction, operation: StoredOperation, now: number): Promise<void>
  /** Remove what is left of resources that have been gone for their time, some at a time; gives how many. */
  removeTombstones(ctx: Context): Promise<number>
}

/**
 * Every kind of resource that has operations: a new one begins with a line here and its operations in
 * `operationKinds` (contract/operations.ts); retention follows from both.
 */
export const resourceKinds: Readonly<Record<OperationResource, ResourceKind>> = {
  instance: instanceKind,
}
