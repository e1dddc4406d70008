import type { ConsoleChunk, Observed, ObservedInstance, ObservedRepair } from '@berth/contract/hosts/agent-protocol.ts'
import { toRfc3339 } from '@berth/contract/units.ts'
import { ApiError } from '../../api-error.ts'
import type { Context } from '../../context.ts'
import { findHost, insertHostIfAbsent, type StoredHost, updateHostReport } from '../../store/hosts/hosts.ts'
import { storeHostOrphans } from '../../store/hosts/orphans.ts'
import { appendConsole, consoleEnd } from '../../store/instances/console-log.ts'
import { findHostOf, findReported, updateReport } from '../../store/instances/instances.ts'
import { updateHostUsage } from '../../store/instances/usage.ts'
import type { Transaction } from '../../store/transaction.ts'
import { followImageReports } from '../images/reports.ts'
import { settleInstance } from '../instances/settlement.ts'

/**
 * Store what a host says of itself and of its instances, with everything that follows, in one transaction. A report
 * that is not newer than the last one is refused with stale_report; what it says of an instance that another host
 * holds, or nobody, changes nothing (invariant 6).
 */
export async function recordObserved(ctx: Context, hostId: string, observed: Observed): Promise<void> {
  const { hostReports } = ctx.metrics
  try {
    await storeObserved(ctx, hostId, observed)
    hostReports.inc({ outcome: 'accepted' })
  } catch (error) {
    if (error instanceof ApiError && error.code === 'stale_report') hostReports.inc({ outcome: 'stale' })
    throw error
  }
}

async function storeObserved(ctx: Context, hostId: string, observed: Observed): Promise<void> {
  await ctx.store.writeMakingRoom(async (tx) => {
    const host = await findHost(tx.db, hostId)
    if (host === null) throw new ApiError('unauthorized', `Host ${hostId} is not known.`)
    const newer =
      observed.agent_session > host.agent_session ||
      (observed.agent_session === host.agent_session && observed.sequence > host.sequence)
    if (!newer) throw new ApiError('stale_report', `Report ${observed.agent_session}/${observed.sequence} is old.`)
    await updateHostReport(tx, host, {
      agent_session: observed.agent_session,
      sequence: observed.sequence,
      agent_version: observed.agent_version,
      hypervisor: observed.hypervisor,
      accelerator: observed.accelerator,
      accelerator_reason: observed.accelerator_reason,
      capacity_vcpus: observed.capacity.vcpus,
      capacity_memory_mb: observed.capacity.memory_mb,
      capacity_disk_gb: observed.capacity.disk_gb,
      images: observed.images,
      last_seen_at: ctx.now(),
      last_repair: recordRepairs(tx, host, observed.network_repairs ?? []),
    })
    await followImageReports(ctx, tx, hostId, { before: host.images, after: observed.images })
    if (observed.usage !== undefined) await updateHostUsage(tx, hostId, observed.usage)
    const { orphans } = observed
    if (orphans !== undefined) {
      await storeHostOrphans(tx, hostId, { looked_at: ctx.now() - orphans.age_ms, orphans: orphans.found })
    }
    await recordInstances(ctx, tx, hostId, observed.instances)
  })
}

/** Make events of the repairs that were not heard of before; gives the number of the last one that was. */
function recordRepairs(tx: Transaction, host: StoredHost, repairs: readonly ObservedRepair[]): number {
  let last = host.last_repair
  for (const { number, at, vpc_id, object, detail } of repairs.toSorted((a, b) => a.number - b.number)) {
    if (number <= last) continue
    last = number
    const told = { number, object, vpc_id, detail, repaired_at: toRfc3339(at) }
    tx.changed({ resource: 'host', id: host.id, action: 'repaired', detail: told })
  }
  return last
}

async function recordInstances(
  ctx: Context,
  tx: Transaction,
  hostId: string,
  reports: readonly ObservedInstance[],
): Promise<void> {
  let foreign = 0
  for (const report of reports) {
    const instance = await findReported(tx.db, hostId, report)
    // what is absent there was held until lately; the host forgets it when it next hears from here
    if (instance === null && report.power !== 'absent') foreign++
    if (instance === null || instance === 'same') continue
    await settleInstance(tx, await updateReport(tx, instance, report), ctx.now())
  }
  if (foreign > 0) tx.afterCommit(() => ctx.metrics.foreignEntries.inc(foreign))
}

/** Make the hosts of the configuration known, so that they can be reported and placed on. */
export async function registerHosts(ctx: Context, hostIds: readonly string[]): Promise<void> {
  await ctx.store.writeMakingRoom(async (tx) => {
    for (const id of hostIds) await insertHostIfAbsent(tx, { id, name: id, created_at: ctx.now() })
  })
}

/**
 * Add serial output of a host's instances. A chunk that does not start where the last one ended is not stored: the answer
 * tells the agent where to go on, so a doubled or lost post neither repeats nor skips a byte. It is null for an instance
 * that the host does not hold.
 */
export async function recordConsole(
  ctx: Context,
  hostId: string,
  chunks: readonly ConsoleChunk[],
): Promise<(number | null)[]> {
  return ctx.store.write(async (tx) => {
    const nextOffsets: (number | null)[] = []
    for (const chunk of chunks) nextOffsets.push(await recordChunk(tx, hostId, chunk))
    return nextOffsets
  })
}

async function recordChunk(
  tx: Transaction,
  hostId: string,
  { instance_id: id, offset, data: base64 }: ConsoleChunk,
): Promise<number | null> {
  if ((await findHostOf(tx.db, id)) !== hostId) return null
  const end = await consoleEnd(tx.db, id)
  const data = Buffer.from(base64, 'base64')
  // a gap is taken as it is when the host itself no longer has the bytes (its log is capped)
  if (offset < end || data.byteLength === 0) return end
  await appendConsole(tx, id, offset, data)
  return offset + data.byteLength
}
