import type { CatalogueImage } from '@berth/contract/images/images.ts'
import type { InstanceType } from '@berth/contract/instances/instance-types.ts'
import type { OperationType } from '@berth/contract/operation-kinds.ts'
import type { Logger } from 'pino'
import type { Settings } from './config.ts'
import type { PublicPool } from './domain/networks/public-pools.ts'
import type { EventFeed } from './feed/event-feed.ts'
import type { WaitSlots } from './feed/waiting.ts'
import type { ServerMetrics } from './metrics/server-metrics.ts'
import type { Readiness } from './readiness.ts'
import type { Store } from './store/store.ts'

/** What the rules of the domain and the controllers work with; built once by main.ts. */
export interface Context {
  store: Store
  feed: EventFeed
  log: Logger
  metrics: ServerMetrics
  readiness: Readiness
  /** Id of the HTTP request that is being served, "" in what no request asked for. */
  requestId: string
  /** Milliseconds UTC. */
  now: () => number
  settings: Settings
  images: ReadonlyMap<string, CatalogueImage>
  instanceTypes: ReadonlyMap<string, InstanceType>
  /** In the order of the configuration; the first one is used where none is named. */
  publicPools: readonly PublicPool[]
  /** How many clients may wait at the same time. */
  waitSlots: WaitSlots
}

/** The same context for what a request asks for, so that its log lines can be told. */
export function forRequest(ctx: Context, request: { id: string }): Context {
  return { ...ctx, requestId: request.id }
}

/** Milliseconds an operation of this type may take. */
export function deadlineMs(settings: Settings, type: OperationType, graceSeconds: number): number {
  return settings.deadlinesMs[type] + graceSeconds * 1000
}
