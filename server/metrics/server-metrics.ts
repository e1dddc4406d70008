import { Counter, Gauge, Histogram, type Metric, Registry } from 'prom-client'
import type { CommitFacts, StoreObserver } from '../store/observer.ts'
import type { StoredOperation } from '../store/schema.ts'
import { RequestDurations } from './request-durations.ts'

/** Why a request is not answered at once: it waits for a target, it is a host's long poll, or it is an event stream. */
export const heldKinds = ['wait', 'host', 'events'] as const
export type HeldKind = (typeof heldKinds)[number]

/** Buckets of what takes a machine its time, seconds: from a step of a simulated host to a large download. */
const stepBuckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600]
const heldBuckets = [0.1, 1, 5, 10, 30, 60, 300, 600, 3600]
const storeBuckets = [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5]
const passBuckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

/**
 * The figures of one server, in a registry of its own; what is read from the store when someone asks is in
 * state-metrics.ts. Names and units follow https://prometheus.io/docs/practices/naming/. No label has values that
 * callers make up.
 */
export class ServerMetrics implements StoreObserver {
  readonly registry = new Registry()
  readonly #others: readonly Registry[]

  /** Requests that are open, and how many of them are held, by kind; written by http/tracking.ts. */
  readonly requests = { open: 0, held: { wait: 0, host: 0, events: 0 } satisfies Record<HeldKind, number> }
  readonly requestDurations = new RequestDurations()
  readonly heldDurations = this.#histogram({
    name: 'berth_http_held_request_duration_seconds',
    help: 'Time a request was held: a wait of a client, a long poll of a host, an event stream',
    labelNames: ['kind'],
    buckets: heldBuckets,
  })
  readonly unreadableRequests = this.#counter({
    name: 'berth_http_unreadable_requests_total',
    help: 'What arrived and was no HTTP request',
    labelNames: [],
  })
  readonly operationsOpened = this.#counter({
    name: 'berth_operations_opened_total',
    help: 'Operations that were opened',
    labelNames: ['type'],
  })
  readonly operationDurations = this.#histogram({
    name: 'berth_operation_duration_seconds',
    help: 'Time from the opening of an operation to its end',
    labelNames: ['type', 'outcome'],
    buckets: stepBuckets,
  })
  readonly stepDurations = this.#histogram({
    name: 'berth_operation_step_duration_seconds',
    help: 'Time a step of an operation took, all its attempts; counted when the operation ends',
    labelNames: ['type', 'step', 'outcome'],
    buckets: stepBuckets,
  })
  readonly transactionDurations = this.#histogram({
    name: 'berth_store_transaction_duration_seconds',
    help: 'Time from the begin of a transaction until it is durable',
    labelNames: [],
    buckets: storeBuckets,
  })
  readonly commitDurations = this.#histogram({
    name: 'berth_store_commit_duration_seconds',
    help: 'Time from the last write of a transaction until it is durable',
    labelNames: [],
    buckets: storeBuckets,
  })
  readonly commitWrites = this.#histogram({
    name: 'berth_store_commit_writes',
    help: 'Writes that shared a commit',
    labelNames: [],
    buckets: [1, 2, 4, 8, 16, 32, 64],
  })
  readonly storeWrites = this.#counter({
    name: 'berth_store_writes_total',
    help: 'Writes by what became of them: committed, rolled_back by their own caller, lost with their commit',
    labelNames: ['outcome'],
  })
  readonly commitFailures = this.#counter({
    name: 'berth_store_commit_failures_total',
    help: 'Commits that failed; nothing of them was stored',
    labelNames: [],
  })
  readonly events = this.#counter({
    name: 'berth_events_written_total',
    help: 'Events of the change feed',
    labelNames: ['type'],
  })
  readonly passDurations = this.#histogram({
    name: 'berth_controller_pass_duration_seconds',
    help: 'Time a pass of a controller took, failed ones too',
    labelNames: ['controller'],
    buckets: passBuckets,
  })
  readonly passFailures = this.#counter({
    name: 'berth_controller_pass_failures_total',
    help: 'Passes of a controller that failed and were tried again',
    labelNames: ['controller'],
  })
  readonly passSuccess = this.#gauge({
    name: 'berth_controller_last_success_timestamp_seconds',
    help: 'When a pass of a controller last came to its end, Unix time',
    labelNames: ['controller'],
  })
  readonly hostReports = this.#counter({
    name: 'berth_host_reports_total',
    help: 'Reports of hosts: accepted, stale (not newer than the last), foreign (of no host that is known here)',
    labelNames: ['outcome'],
  })
  readonly foreignEntries = this.#counter({
    name: 'berth_host_report_foreign_entries_total',
    help: 'Instances that a host reported though it does not hold them; what it said of them changed nothing',
    labelNames: [],
  })
  readonly publicAddressShortages = this.#counter({
    name: 'berth_public_address_shortages_total',
    help: 'Instances made without the public address that their subnet gives, since none was free',
    labelNames: [],
  })

  /** `others` are registries that the endpoint prints too: of the process, of an agent in it. */
  constructor(others: readonly Registry[] = []) {
    this.#others = others
    // the registry prints whatever has a name and gives its values; its type knows only its own classes
    this.registry.registerMetric(this.requestDurations as unknown as Metric)
    const { requests } = this
    this.#gauge({
      name: 'berth_http_requests_in_flight',
      help: 'Requests that are being answered, without those that are held',
      labelNames: [],
      collect() {
        this.set(heldKinds.reduce((rest, kind) => rest - requests.held[kind], requests.open))
      },
    })
    this.#gauge({
      name: 'berth_http_held_requests',
      help: 'Requests that are held now: waits of clients, long polls of hosts, event streams',
      labelNames: ['kind'],
      collect() {
        for (const kind of heldKinds) this.set({ kind }, requests.held[kind])
      },
    })
    for (const outcome of ['committed', 'rolled_back', 'lost']) this.storeWrites.inc({ outcome }, 0)
    for (const outcome of ['accepted', 'stale', 'foreign']) this.hostReports.inc({ outcome }, 0)
  }

  /** Everything in Prometheus' text format. */
  async render(): Promise<string> {
    const texts = await Promise.all([this.registry, ...this.#others].map((registry) => registry.metrics()))
    return texts.join('\n')
  }

  committed({ kept, rolledBack, transactionMs, commitMs, events }: CommitFacts): void {
    this.transactionDurations.observe(transactionMs / 1000)
    this.commitDurations.observe(commitMs / 1000)
    this.commitWrites.observe(kept + rolledBack)
    this.storeWrites.inc({ outcome: 'committed' }, kept)
    if (rolledBack > 0) this.storeWrites.inc({ outcome: 'rolled_back' }, rolledBack)
    for (const type of events) this.events.inc({ type })
  }

  commitFailed(writes: number): void {
    this.commitFailures.inc()
    this.storeWrites.inc({ outcome: 'lost' }, writes)
  }

  operationOpened({ type }: StoredOperation): void {
    this.operationsOpened.inc({ type })
  }

  /** Times of operations are stored, so they are of the wall clock; one that was set back gives 0. */
  operationEnded({ type, status, steps, created_at: createdAt, finished_at: finishedAt }: StoredOperation): void {
    this.operationDurations.observe({ type, outcome: status }, secondsBetween(createdAt, finishedAt ?? createdAt))
    for (const step of steps) {
      if (step.started_at === null || step.finished_at === null) continue
      const labels = { type, step: step.name, outcome: step.status }
      this.stepDurations.observe(labels, secondsBetween(step.started_at, step.finished_at))
    }
  }

  #histogram<T extends string>(about: { name: string; help: string; labelNames: T[]; buckets: number[] }) {
    return new Histogram<T>({ ...about, registers: [this.registry] })
  }

  #counter<T extends string>(about: { name: string; help: string; labelNames: T[] }) {
    return new Counter<T>({ ...about, registers: [this.registry] })
  }

  #gauge<T extends string>(about: {
    name: string
    help: string
    labelNames: T[]
    collect?: (this: Gauge<T>) => void | Promise<void>
  }) {
    return new Gauge<T>({ ...about, registers: [this.registry] })
  }
}

function secondsBetween(fromMs: number, toMs: number): number {
  return Math.max(0, toMs - fromMs) / 1000
}
