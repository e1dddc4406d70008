import { consoleLogKeptBytes } from '@berth/contract/hosts/agent-protocol.ts'
import { insertRow, prepare } from '../engine/prepared.ts'
import type { Reader, Transaction } from '../transaction.ts'

const last = prepare((db, place) =>
  db
    .selectFrom('console_chunks')
    .select(['offset', 'length'])
    .where('instance_id', '=', place('instance_id'))
    .orderBy('offset', 'desc')
    .limit(1),
)

/** Where the next chunk of an instance's serial output has to start, in bytes since it was created. */
export async function consoleEnd(db: Reader, instanceId: string): Promise<number> {
  const chunk = await last.first(db, { instance_id: instanceId })
  return chunk === undefined ? 0 : Number(chunk.offset) + Number(chunk.length)
}

const deleteBefore = prepare((db, place) =>
  db.deleteFrom('console_chunks').where('instance_id', '=', place('instance_id')).where('offset', '<', place('offset')),
)

/** Add a chunk behind the last one and drop what is older than the bytes that are kept. */
export async function appendConsole(
  tx: Transaction,
  instanceId: string,
  offset: number,
  data: Uint8Array,
): Promise<void> {
  await insertRow(tx.db, 'console_chunks', { instance_id: instanceId, offset, length: data.byteLength, data })
  const kept = offset + data.byteLength - consoleLogKeptBytes
  if (kept > 0) await deleteBefore.run(tx.db, { instance_id: instanceId, offset: kept })
}

/** The kept serial output of an instance, oldest byte first. */
export async function readConsole(db: Reader, instanceId: string): Promise<Buffer> {
  const rows = await db
    .selectFrom('console_chunks')
    .select('data')
    .where('instance_id', '=', instanceId)
    .orderBy('offset')
    .execute()
  return Buffer.concat(rows.map((row) => row.data)).subarray(-consoleLogKeptBytes)
}
