import { isDeepStrictEqual } from 'node:util'
import { newUid } from '@berth/contract/ids.ts'
import { ApiError } from '../api-error.ts'
import { type PreparedQuery, prepare } from './engine/prepared.ts'
import type { VersionColumns } from './schema.ts'
import type { Transaction } from './transaction.ts'

/*
 * Optimistic updates: whoever changes a row names the version of it that he read. Writers of one server stand in line
 * anyway; this holds the mistakes of our own, and several servers, to the same.
 */

/** The tables whose rows have a generation. */
type VersionedTable = 'instances' | (typeof tables)[keyof typeof tables]

/** The resources that callers may change, but for instances, by the tables they are in. */
const tables = {
  host: 'hosts',
  vpc: 'vpcs',
  subnet: 'subnets',
  security_group: 'security_groups',
  ssh_key: 'ssh_keys',
  image: 'images',
  public_ip: 'public_ips',
} as const

/** The columns by which a row is told from one that had its id before, and from what it was before. */
export type StoredVersion = VersionColumns & { id: string }

/** The version of a resource that is being made. */
export function firstVersion(): VersionColumns {
  return { uid: newUid(), generation: 1 }
}

const updates = new Map<string, PreparedQuery<unknown>>()

/**
 * Change columns of the version of a row that was read; objects and arrays are stored as JSON. Throws unavailable when
 * there is a newer version. A query is made once for the columns that change together.
 */
export async function updateVersion(
  tx: Transaction,
  table: VersionedTable,
  read: { id: string; generation: number },
  values: object,
): Promise<void> {
  const columns = Object.keys(values)
  const key = `${table} ${columns}`
  let query = updates.get(key)
  if (query === undefined) {
    query = prepare((db, place) =>
      db
        .updateTable(table as 'hosts') // all have these columns
        .set(Object.fromEntries(columns.map((column) => [column, place(column)])))
        .where('id', '=', place('read id'))
        .where('generation', '=', place('read generation')),
    )
    updates.set(key, query)
  }
  const stored = Object.fromEntries(Object.entries(values).map(([column, value]) => [column, asStored(value)]))
  const changed = await query.run(tx.db, { ...stored, 'read id': read.id, 'read generation': read.generation })
  if (changed !== 1) throw new ApiError('unavailable', `${read.id} changed at the same moment; try again.`)
}

/**
 * Give a resource values that a caller asks for: a new generation, and an event. Gives the new version, which is the one
 * that was read when nothing differs.
 */
export async function updateResource<T extends StoredVersion>(
  tx: Transaction,
  resource: keyof typeof tables,
  read: T,
  values: Partial<T>,
): Promise<T> {
  if (!differs(read, values)) return read
  const generation = read.generation + 1
  await updateVersion(tx, tables[resource], read, { ...values, generation })
  tx.changed({ resource, id: read.id, action: 'updated', detail: { generation } })
  return { ...read, ...values, generation }
}

/** Whether values would change what was read. The order of an object's fields does not count, that of an array does. */
export function differs<T extends object>(read: T, values: Partial<T>): boolean {
  return Object.entries(values).some(([name, value]) => !isDeepStrictEqual(value, Reflect.get(read, name)))
}

function asStored(value: unknown): unknown {
  return typeof value === 'object' && value !== null ? JSON.stringify(value) : value
}
