import { setTimeout as delay } from 'node:timers/promises'
import { instanceStates } from '@berth/contract/instances/states.ts'
import { operationTypes } from '@berth/contract/operation-kinds.ts'
import { Gauge } from 'prom-client'
import type { Context } from '../context.ts'
import { isReady } from '../domain/hosts/hosts.ts'
import {
  countInstancesByState,
  countOpenOperations,
  countUnplacedInstances,
  type HostAllocation,
  listHostAllocations,
} from '../store/totals.ts'

/** Longest that metrics wait for the store, milliseconds; without its answer they come without what it knows. */
const patienceMs = 2000

const bytesPerMib = 1024 ** 2
const bytesPerGib = 1024 ** 3

/**
 * Figures that are in the store: they are read when someone asks for metrics, so servers that share a database say the
 * same. Gives the function that reads them anew. It never fails: a store that does not answer leaves them out and sets
 * `berth_store_readable` to 0, so metrics are there when they are needed most. Requests that come at the same time
 * share one reading.
 */
export function stateMetrics(ctx: Context): () => Promise<void> {
  const registers = [ctx.metrics.registry]
  const gauge = <T extends string>(name: string, help: string, labelNames: T[] = []) =>
    new Gauge<T>({ name, help, labelNames, registers })
  const readable = gauge('berth_store_readable', 'Whether the store could be read for these metrics: 1 or 0')
  const queue = gauge('berth_store_queue_writes', 'Writes that wait for a commit to take them')
  const instances = gauge('berth_instances', 'Instances, tombstones too', ['state'])
  const unplaced = gauge('berth_instances_unplaced', 'Instances that wait for a host')
  const operations = gauge('berth_operations_open', 'Operations that have not ended', ['type'])
  const hosts = gauge('berth_hosts', 'Hosts that have ever connected', ['state', 'schedulable'])
  const resources = hostResources.map(({ name, what, read }) => ({
    capacity: gauge(`berth_hosts_capacity_${name}`, `${what} that hosts offer`, ['state']),
    reserved: gauge(`berth_hosts_reserved_${name}`, `${what} of hosts that are reserved for instances`, ['state']),
    read,
  }))
  const labelled = [
    instances,
    operations,
    hosts,
    ...resources.flatMap(({ capacity, reserved }) => [capacity, reserved]),
  ]

  const read = async () => {
    const db = ctx.store.read
    const [states, waiting, open, usage] = await Promise.all([
      countInstancesByState(db),
      countUnplacedInstances(db),
      countOpenOperations(db),
      listHostAllocations(db),
    ])
    for (const state of instanceStates) instances.set({ state }, states.get(state) ?? 0)
    unplaced.set(waiting)
    for (const type of operationTypes) operations.set({ type }, open.get(type) ?? 0)
    for (const state of ['ready', 'unreachable'] as const) {
      const inState = usage.filter((host) => stateOf(ctx, host) === state)
      for (const schedulable of ['true', 'false']) {
        const count = inState.filter((host) => (host.schedulable !== 0 ? 'true' : 'false') === schedulable).length
        hosts.set({ state, schedulable }, count)
      }
      for (const { capacity, reserved, read: amounts } of resources) {
        capacity.set({ state }, sum(inState.map((host) => amounts(host).capacity)))
        reserved.set({ state }, sum(inState.map((host) => amounts(host).reserved)))
      }
    }
  }

  let reading: Promise<boolean> | null = null
  const readOnce = () => {
    reading ??= read()
      .then(() => true)
      .catch((error) => {
        ctx.log.warn({ err: error }, 'the store cannot be read for metrics')
        return false
      })
      .finally(() => {
        reading = null
      })
    return reading
  }
  return async () => {
    const timer = new AbortController()
    const tooLate = delay(patienceMs, false, { signal: timer.signal, ref: false }).catch(() => false)
    const known = await Promise.race([readOnce(), tooLate])
    timer.abort()
    readable.set(known ? 1 : 0)
    queue.set(ctx.store.queueLength)
    if (known) return
    for (const metric of labelled) metric.reset()
    unplaced.remove() // a reset would set one without labels to 0
  }
}

const hostResources = [
  {
    name: 'vcpus',
    what: 'vCPUs',
    read: (host: HostAllocation) => ({ capacity: host.capacity_vcpus, reserved: host.allocated_vcpus }),
  },
  {
    name: 'memory_bytes',
    what: 'Memory',
    read: (host: HostAllocation) => ({
      capacity: host.capacity_memory_mb * bytesPerMib,
      reserved: host.allocated_memory_mb * bytesPerMib,
    }),
  },
  {
    name: 'disk_bytes',
    what: 'Disk space',
    read: (host: HostAllocation) => ({
      capacity: host.capacity_disk_gb * bytesPerGib,
      reserved: host.allocated_disk_gb * bytesPerGib,
    }),
  },
] as const

function stateOf(ctx: Context, host: HostAllocation): 'ready' | 'unreachable' {
  return isReady(ctx, host) ? 'ready' : 'unreachable'
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)
