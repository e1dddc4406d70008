import {
  type OperationResource,
  type OperationStatus,
  type OperationType,
  operationKinds,
  operationTypes,
} from '@berth/contract/operation-kinds.ts'
import { ApiError } from '../api-error.ts'
import type { Change } from './change.ts'
import { insertRow, prepare } from './engine/prepared.ts'
import { type Listed, listMatching, type Page } from './resource-list.ts'
import type { OperationRow, StoredOperation } from './schema.ts'
import type { Reader, Transaction } from './transaction.ts'

/** The operation. Throws not_found. */
export async function getOperation(db: Reader, id: string): Promise<StoredOperation> {
  const row = await db.selectFrom('operations').selectAll().where('id', '=', id).executeTakeFirst()
  if (row === undefined) throw new ApiError('not_found', `There is no operation ${id}.`)
  return parse(row)
}

export interface OperationFilter {
  resource_type?: OperationResource
  resource_id?: string
  type?: OperationType
  status?: OperationStatus
}

/** Operations, newest first, older than `after`. There is an index for the resource alone. */
export async function listOperations(
  db: Reader,
  filter: OperationFilter,
  page: Page,
): Promise<Listed<StoredOperation>> {
  const { resource_id: resourceId, resource_type: resourceType, ...wanted } = filter
  const types = resourceType === undefined ? null : typesOn(resourceType)
  const isExact = types === null && Object.keys(wanted).length === 0
  const fits = ({ type, status }: StoredOperation) =>
    (types === null || types.includes(type)) &&
    (wanted.type === undefined || wanted.type === type) &&
    (wanted.status === undefined || wanted.status === status)
  return listMatching(page, isExact ? null : fits, async (after, limit) => {
    let query = db.selectFrom('operations').selectAll().orderBy('id', 'desc').limit(limit)
    if (resourceId !== undefined) query = query.where('resource_id', '=', resourceId)
    if (after !== undefined) query = query.where('id', '<', after)
    return (await query.execute()).map(parse)
  })
}

function typesOn(resource: OperationResource): OperationType[] {
  return operationTypes.filter((type) => operationKinds[type].resource_type === resource)
}

const open = prepare((db, place) =>
  db
    .selectFrom('operations')
    .selectAll()
    .where('resource_id', '=', place('resource_id'))
    .where('finished_at', 'is', null)
    .orderBy('id'),
)

/** The operations of a resource that have not ended; at most one but for a moment inside a transaction. */
export async function listOpenOperations(db: Reader, resourceId: string): Promise<StoredOperation[]> {
  return (await open.all(db, { resource_id: resourceId })).map(parse)
}

/** The last operation of a type on a resource, or null. */
export async function findLastOperation(
  db: Reader,
  resourceId: string,
  type: OperationType,
): Promise<StoredOperation | null> {
  const row = await db
    .selectFrom('operations')
    .selectAll()
    .where('resource_id', '=', resourceId)
    .where('type', '=', type)
    .orderBy('id', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row === undefined ? null : parse(row)
}

/** Open operations whose deadline has passed. */
export async function listOverdueOperations(db: Reader, now: number, limit: number): Promise<StoredOperation[]> {
  const rows = await db
    .selectFrom('operations')
    .selectAll()
    .where('finished_at', 'is', null)
    .where('deadline_at', '<', now)
    .orderBy('deadline_at')
    .limit(limit)
    .execute()
  return rows.map(parse)
}

export async function insertOperation(tx: Transaction, operation: StoredOperation): Promise<void> {
  await insertRow(tx.db, 'operations', serialise(operation))
  tx.afterCommit((observer) => observer.operationOpened(operation))
  tx.changed(change('created', operation))
}

const update = prepare((db, place) =>
  db
    .updateTable('operations')
    .set({
      status: place('status'),
      steps: place('steps'),
      error: place('error'),
      deadline_at: place('deadline_at'),
      finished_at: place('finished_at'),
    })
    .where('id', '=', place('id'))
    .where('finished_at', 'is', null),
)

/** Store a new version of an operation that has not ended; what it is about stays what it was. */
export async function updateOperation(tx: Transaction, operation: StoredOperation): Promise<void> {
  const { id, status, steps, error, deadline_at, finished_at } = serialise(operation)
  const changed = await update.run(tx.db, { id, status, steps, error, deadline_at, finished_at })
  if (changed !== 1) throw new Error(`operation ${id} had ended already`)
  if (finished_at !== null) tx.afterCommit((observer) => observer.operationEnded(operation))
  tx.changed(change('updated', operation))
}

function change(action: 'created' | 'updated', { id, type, status, resource_id }: StoredOperation): Change {
  return { resource: 'operation', id, action, detail: { type, status, resource_id } }
}

/** Ids of operations that ended before a time, longest ago first. */
export async function listOldOperations(db: Reader, before: number, limit: number): Promise<string[]> {
  const rows = await db
    .selectFrom('operations')
    .select('id')
    .where('finished_at', '<', before)
    .orderBy('finished_at')
    .limit(limit)
    .execute()
  return rows.map((row) => row.id)
}

/** Remove operations; a few thousand at most, since their ids go in one statement. */
export async function deleteOperations(tx: Transaction, ids: readonly string[]): Promise<void> {
  await tx.db
    .deleteFrom('operations')
    .where('id', 'in', [...ids])
    .execute()
  for (const id of ids) tx.changed({ resource: 'operation', id, action: 'deleted' })
}

function parse(row: OperationRow): StoredOperation {
  return {
    ...row,
    type: row.type as OperationType, // written by insertOperation alone
    status: row.status as OperationStatus,
    steps: JSON.parse(row.steps),
    error: row.error === null ? null : JSON.parse(row.error),
  }
}

function serialise(operation: StoredOperation): OperationRow {
  return {
    ...operation,
    steps: JSON.stringify(operation.steps),
    error: operation.error === null ? null : JSON.stringify(operation.error),
  }
}
