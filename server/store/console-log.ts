import { consoleLogKeptBytes } from '@berth/contract/host.ts'
import type { Reader, Transaction } from './store.ts'

/** Where the next chunk of an instance's serial output has to start, in bytes since it was created. */
export async function consoleEnd(db: Reader, instanceId: string): Promise<number> {
  const last = await db
    .selectFrom('console_chunks')
    .select(['offset', 'length'])
    .where('instance_id', '=', instanceId)
    .orderBy('offset', 'desc')
    .limit(1)
    .executeTakeFirst()
  return last === undefined ? 0 : Number(last.offset) + Number(last.length)
}

/** Add a chunk behind the last one and drop what is older than the bytes that are kept. */
export async function appendConsole(
  tx: Transaction,
  instanceId: string,
  offset: number,
  data: Uint8Array,
): Promise<void> {
  await tx.db
    .insertInto('console_chunks')
    .values({ instance_id: instanceId, offset, length: data.byteLength, data })
    .execute()
  await tx.db
    .deleteFrom('console_chunks')
    .where('instance_id', '=', instanceId)
    .where('offset', '<', offset + data.byteLength - consoleLogKeptBytes)
    .execute()
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
