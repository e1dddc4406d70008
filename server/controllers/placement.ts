import type { Context } from '../context.ts'
import { isReady } from '../domain/hosts.ts'
import { abandonUnplaced, settleInstance } from '../domain/instance-lifecycle.ts'
import { failure } from '../domain/operations.ts'
import { listHosts, reserve, type Size, type StoredHost, touchHost } from '../store/hosts.ts'
import { listUnplacedInstances, type StoredInstance, updatePlacement, updateRefusal } from '../store/instances.ts'
import type { Transaction } from '../store/store.ts'
import type { ControllerPass } from './driver.ts'

const batchSize = 100

export type Refusal = 'unreachable' | 'cordoned' | 'too_small' | 'no_vcpus' | 'no_memory' | 'no_disk'

/** Why a host cannot take an instance of a size now, or null. Pure. */
export function refusal(host: StoredHost, ready: boolean, size: Size): Refusal | null {
  if (
    size.vcpus > host.capacity_vcpus ||
    size.memory_mb > host.capacity_memory_mb ||
    size.disk_gb > host.capacity_disk_gb
  ) {
    return 'too_small'
  }
  if (!ready) return 'unreachable'
  if (host.schedulable !== 1) return 'cordoned'
  if (host.allocated_vcpus + size.vcpus > host.capacity_vcpus) return 'no_vcpus'
  if (host.allocated_memory_mb + size.memory_mb > host.capacity_memory_mb) return 'no_memory'
  if (host.allocated_disk_gb + size.disk_gb > host.capacity_disk_gb) return 'no_disk'
  return null
}

/**
 * Choose the host for an instance of a size, or null when none has room. Ties and all else go to the fullest host by
 * reserved memory, so that empty ones can be drained. Pure.
 */
export function chooseHost(hosts: readonly { host: StoredHost; ready: boolean }[], size: Size): StoredHost | null {
  const fitting = hosts.filter(({ host, ready }) => refusal(host, ready, size) === null).map(({ host }) => host)
  const free = (host: StoredHost) => host.capacity_memory_mb - host.allocated_memory_mb
  return fitting.sort((a, b) => free(a) - free(b) || (a.id < b.id ? -1 : 1))[0] ?? null
}

/** Give waiting instances their hosts, oldest first; room is reserved by a conditional update in the same transaction. */
export function placementPass(ctx: Context): ControllerPass {
  return async () => {
    const counts = { placed: 0, waiting: 0, abandoned: 0 }
    let after = ''
    for (;;) {
      const [next] = await listUnplacedInstances(ctx.store.read, after, 1)
      if (next === undefined) break
      after = await ctx.store.write((tx) => placeBatch(ctx, tx, after, counts))
    }
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
  const known = (await listHosts(tx.db)).filter((host) => host.last_seen_at > 0)
  const hosts = known.map((host) => ({ host, ready: isReady(ctx, host) }))
  const woken = new Set<string>()
  const batch = await listUnplacedInstances(tx.db, after, batchSize)
  for (const instance of batch) {
    const host = chooseHost(hosts, instance)
    if (host !== null && (await reserve(tx, host.id, instance))) {
      await place(ctx, tx, instance, host)
      woken.add(host.id)
      counts.placed++
    } else if (hosts.length > 0 && hosts.every((each) => refusal(each.host, each.ready, instance) === 'too_small')) {
      await abandonUnplaced(tx, instance, failure('no_host_fits', tooLarge(instance, known), false), ctx.now())
      counts.abandoned++
    } else {
      const why = explain(hosts, instance)
      if (why !== instance.refusal) await updateRefusal(tx, instance, why)
      counts.waiting++
    }
  }
  for (const hostId of woken) await touchHost(tx, hostId)
  return batch.at(-1)?.id ?? after
}

async function place(ctx: Context, tx: Transaction, instance: StoredInstance, host: StoredHost): Promise<void> {
  host.allocated_vcpus += instance.vcpus
  host.allocated_memory_mb += instance.memory_mb
  host.allocated_disk_gb += instance.disk_gb
  const placement = { host_id: host.id, scheduled_at: ctx.now() }
  await updatePlacement(tx, instance, placement)
  await settleInstance(tx, { ...instance, ...placement, refusal: '' }, ctx.now())
}

function tooLarge(size: Size, hosts: readonly StoredHost[]): string {
  const largest = hosts.map(
    (host) => `${host.capacity_vcpus} vCPU, ${host.capacity_memory_mb} MiB, ${host.capacity_disk_gb} GiB`,
  )
  return `${size.vcpus} vCPU, ${size.memory_mb} MiB and ${size.disk_gb} GiB fit on no host, even empty: ${largest.join('; ')}.`
}

function explain(hosts: readonly { host: StoredHost; ready: boolean }[], size: Size): string {
  if (hosts.length === 0) return 'No host has connected yet.'
  const counts = new Map<Refusal, number>()
  for (const { host, ready } of hosts) {
    const why = refusal(host, ready, size)
    if (why !== null) counts.set(why, (counts.get(why) ?? 0) + 1)
  }
  const reasons = [...counts].map(([why, count]) => `${why}: ${count}`)
  return `${hosts.length} ${hosts.length === 1 ? 'host' : 'hosts'} refused (${reasons.join(', ')}).`
}
