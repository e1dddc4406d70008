import { setImmediate as nextTurn } from 'node:timers/promises'
import { type InstanceState, instanceStates } from '@berth/contract/instances/states.ts'
import type { OperationType } from '@berth/contract/operation-kinds.ts'
import type { Reader } from './transaction.ts'

/*
 * What there is, in numbers, for metrics. SQLite answers in the thread that serves requests, so what may be long is
 * counted in pieces along an index, and others have their turn between two pieces. A sum is therefore no snapshot.
 */

/** Index entries that are counted at once; few enough that a piece takes about a millisecond. */
const pieceSize = 2000

/** The same for entries whose row has to be looked at. */
const rowPieceSize = 250

interface Piece {
  last: string | null
  counted: number
}

/** Go through all pieces; each begins behind the last id of the one before. */
async function inPieces(size: number, count: (after: string) => Promise<Piece>): Promise<number> {
  let total = 0
  let after = ''
  for (;;) {
    const { last, counted } = await count(after)
    total += counted
    if (last === null || counted < size) return total
    after = last
    await nextTurn()
  }
}

/** How many instances are in each state, tombstones too. */
export async function countInstancesByState(db: Reader): Promise<Map<InstanceState, number>> {
  const counts = new Map<InstanceState, number>()
  for (const state of instanceStates)
    counts.set(state, await inPieces(pieceSize, (after) => countState(db, state, after)))
  return counts
}

async function countState(db: Reader, state: InstanceState, after: string): Promise<Piece> {
  const piece = db
    .selectFrom('instances')
    .select('id')
    .where('state', '=', state)
    .where('id', '>', after)
    .orderBy('id')
    .limit(pieceSize)
  const row = await db
    .selectFrom(piece.as('piece'))
    .select((eb) => [eb.fn.countAll<number>().as('n'), eb.fn.max('id').as('last')])
    .executeTakeFirstOrThrow()
  return { counted: Number(row.n), last: row.last }
}

/** How many operations of each type have not ended; a type that has none is left out. */
export async function countOpenOperations(db: Reader): Promise<Map<OperationType, number>> {
  const counts = new Map<OperationType, number>()
  for (const status of ['pending', 'running']) {
    await inPieces(rowPieceSize, async (after) => {
      const piece = db
        .selectFrom('operations')
        .select(['id', 'type'])
        .where('status', '=', status)
        .where('id', '>', after)
        .orderBy('id')
        .limit(rowPieceSize)
      const rows = await db
        .selectFrom(piece.as('piece'))
        .select((eb) => ['type', eb.fn.countAll<number>().as('n'), eb.fn.max('id').as('last')])
        .groupBy('type')
        .execute()
      let last: string | null = null
      let counted = 0
      for (const row of rows) {
        const type = row.type as OperationType // written by insertOperation alone
        counts.set(type, (counts.get(type) ?? 0) + Number(row.n))
        counted += Number(row.n)
        if (last === null || (row.last ?? '') > last) last = row.last
      }
      return { counted, last }
    })
  }
  return counts
}

/** Instances that wait for a host. */
export async function countUnplacedInstances(db: Reader): Promise<number> {
  return inPieces(rowPieceSize, async (after) => {
    const piece = db
      .selectFrom('instances')
      .select('id')
      .where('host_id', 'is', null)
      .where('terminated_at', 'is', null)
      .where('desired', '!=', 'deleted')
      .where('id', '>', after)
      .orderBy('id')
      .limit(rowPieceSize)
    const row = await db
      .selectFrom(piece.as('piece'))
      .select((eb) => [eb.fn.countAll<number>().as('n'), eb.fn.max('id').as('last')])
      .executeTakeFirstOrThrow()
    return { counted: Number(row.n), last: row.last }
  })
}

/** What a host has and has given away, in vCPUs, MiB and GiB, and when it was last heard of. */
export interface HostAllocation {
  schedulable: number
  last_seen_at: number
  capacity_vcpus: number
  capacity_memory_mb: number
  capacity_disk_gb: number
  allocated_vcpus: number
  allocated_memory_mb: number
  allocated_disk_gb: number
}

/** Every host that has ever connected. */
export async function listHostAllocations(db: Reader): Promise<HostAllocation[]> {
  return db
    .selectFrom('hosts')
    .select([
      'schedulable',
      'last_seen_at',
      'capacity_vcpus',
      'capacity_memory_mb',
      'capacity_disk_gb',
      'allocated_vcpus',
      'allocated_memory_mb',
      'allocated_disk_gb',
    ])
    .where('last_seen_at', '>', 0)
    .execute()
}
