import type { CatalogueImage } from '@berth/contract/images/images.ts'
import type { PrivateSources } from '@berth/contract/images/source.ts'
import type { InstanceType } from '@berth/contract/instances/instance-types.ts'
import type { OperationType } from '@berth/contract/operation-kinds.ts'
import type { Registry } from 'prom-client'
import { defaultLimits, type Limits } from './limits.ts'

/** What may be set; every time is in milliseconds. */
export interface Settings {
  /** Time an operation may take, besides the grace a guest is given. */
  deadlinesMs: Record<OperationType, number>
  /** Time a terminated instance stays readable. */
  tombstoneMs: number
  /** Time an ended operation is kept. */
  operationMs: number
  /** Time an answer stays bound to its idempotency key. */
  idempotencyKeyMs: number
  /** Time an event is kept for clients that resume. */
  eventMs: number
  /** Time after which an idle event stream gets a comment, so that nothing on the way takes it for dead. */
  eventKeepAliveMs: number
  /** Time after which an event stream is cut off whose client reads nothing; it can resume. */
  eventStallMs: number
  /** Time without a word from a host after which it counts as unreachable. */
  hostUnreachableMs: number
  /** Longest that the database may take for a read, and for a write, in a server that is ready. */
  readyBoundMs: number
  /** Time in which a server that stops still serves, but says that it is not ready: for load balancers to turn away. */
  drainMs: number
  /** Period of the controllers, which repairs lost wakes. */
  controllerPeriodMs: number
  /** Which loopback and link-local addresses images may be downloaded from. */
  allowPrivateImageSources: PrivateSources
  /** Bounds on what clients may send and hold. */
  limits: Limits
}

const minuteMs = 60_000

export const defaultSettings: Settings = {
  deadlinesMs: {
    'instance.create': 60 * minuteMs, // a large image over a slow line
    'instance.start': 10 * minuteMs,
    'instance.stop': 5 * minuteMs,
    'instance.reboot': 10 * minuteMs,
    'instance.delete': 10 * minuteMs,
  },
  tombstoneMs: 60 * minuteMs,
  operationMs: 30 * 24 * 60 * minuteMs,
  idempotencyKeyMs: 24 * 60 * minuteMs,
  eventMs: 24 * 60 * minuteMs,
  eventKeepAliveMs: 15_000,
  eventStallMs: 30_000,
  hostUnreachableMs: minuteMs,
  readyBoundMs: 2000,
  drainMs: 0,
  controllerPeriodMs: 10_000,
  allowPrivateImageSources: false,
  limits: defaultLimits,
}

/** A host that may connect and the credential that proves it. */
export interface HostCredential {
  hostId: string
  credential: string
}

/** Addresses that instances can be reached by from outside, as an IPv4 network. */
export interface PublicPoolConfig {
  name: string
  cidr: string
}

export interface ServerConfig {
  /** Address and port to listen on; port 0 takes a free one. Only loopback while there are no API tokens. */
  listen: { host: string; port: number }
  /** Path of an SQLite file, or the URL of a PostgreSQL database (`postgres://…`). */
  database: string
  hosts: readonly HostCredential[]
  images: readonly CatalogueImage[]
  instanceTypes: readonly InstanceType[]
  /** Pools of public addresses; the first one is used where none is named. */
  publicPools?: readonly PublicPoolConfig[]
  settings?: Partial<Settings>
  /** Have the resources that the contract's example names, before the first request; key-001 gets this public key. */
  examplePublicKey?: string
  /** Registries whose metrics `GET /metrics` prints with the server's own: of the process, of an agent in it. */
  otherMetrics?: readonly Registry[]
  /** Milliseconds UTC; the real clock unless given. */
  now?: () => number
}
