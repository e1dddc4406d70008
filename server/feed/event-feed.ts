import { setTimeout as delay, setImmediate as immediate } from 'node:timers/promises'
import { toRfc3339 } from '@berth/contract/units.ts'
import type { Logger } from 'pino'
import { eventRange, listEvents, listEventsOf, type StoredEvent } from '../store/events.ts'
import type { Store } from '../store/store.ts'

/** Events that are kept in memory, already rendered, for the streams that are up to date. */
const recentEvents = 4096

/** Time after which a read of the feed that failed is tried again, milliseconds. */
const retryMs = 500

/** Events read from the database at once, and those that are looked at for the ones of a resource. */
const pageSize = 500
const lookedAtOnce = 10_000

/** Streams that are woken before anything else gets its turn; more make a pause of so long for each, milliseconds. */
const wokenAtOnce = 50
const pausePerStreamMs = 0.1

/** One event as it goes out, and what streams choose by. */
interface FeedEvent {
  sequence: number
  resourceId: string
  text: string
}

/**
 * The change feed as streams read it. Every event is read from the database once for all streams, in the order of its
 * sequence number, and rendered once; a stream that is behind reads pages of its own until it has caught up. Nothing is
 * kept per stream but where it stands, and nothing is read while no stream waits.
 */
export class EventFeed {
  readonly #store: Store
  readonly #log: Logger
  readonly #waiting = new Set<() => void>()
  #recent: FeedEvent[] = []
  #last = 0
  #reading = false
  #dirty = false
  #rested = false
  #retry: NodeJS.Timeout | null = null
  #news = false
  #waking = false
  #unsubscribe: () => void = () => {}

  private constructor(store: Store, log: Logger) {
    this.#store = store
    this.#log = log
  }

  /** Begin behind the newest event there is. */
  static async open(store: Store, log: Logger): Promise<EventFeed> {
    const feed = new EventFeed(store, log)
    feed.#last = (await eventRange(store.read)).last
    feed.#unsubscribe = store.onChange(() => feed.#look())
    return feed
  }

  /** Sequence number of the newest event, also when it is not in memory yet; 0 when there is none. */
  async newest(): Promise<number> {
    return (await eventRange(this.#store.read)).last
  }

  close(): void {
    this.#unsubscribe()
    if (this.#retry !== null) clearTimeout(this.#retry)
    this.#wakeAll()
  }

  /**
   * Whether a stream can go on behind this sequence number without a gap: events that follow it may have been removed,
   * or the database may be an older one than the caller knew. 0 is the oldest event that is kept.
   */
  async canResume(after: number): Promise<boolean> {
    const { first, last } = await eventRange(this.#store.read)
    return after === 0 || (after <= last && after >= first - 1)
  }

  /**
   * The rendered events behind a sequence number, in order, at most a page of them, and up to which number they go; of one
   * resource alone when its id is given. Null when there is no event behind it yet.
   */
  async read(after: number, resourceId?: string): Promise<{ texts: string[]; position: number } | null> {
    if (after >= this.#last) return null
    const oldest = this.#recent[0]
    if (oldest !== undefined && after >= oldest.sequence - 1) {
      const start = firstBehind(this.#recent, after)
      return pageOf(this.#recent.slice(start, start + pageSize), resourceId)
    }
    if (resourceId === undefined) return pageOf((await listEvents(this.#store.read, after, pageSize)).map(render))
    const startedAt = performance.now()
    const { events, last } = await listEventsOf(this.#store.read, resourceId, after, lookedAtOnce)
    // as long for others as for this one: a day has millions of events
    await delay(performance.now() - startedAt, undefined, { ref: false })
    return { texts: events.map((event) => render(event).text), position: last }
  }

  /** Resolves when there may be an event behind this sequence number, or when the signal is aborted. */
  async changed(after: number, signal: AbortSignal): Promise<void> {
    if (after < this.#last || signal.aborted) return
    const { promise, resolve } = Promise.withResolvers<void>()
    const wake = () => resolve()
    this.#waiting.add(wake)
    if (this.#dirty && !this.#reading) void this.#readNew()
    signal.addEventListener('abort', wake)
    await promise
    this.#waiting.delete(wake)
    signal.removeEventListener('abort', wake)
  }

  /** Read what is new, one read at a time; called at each commit. While no stream waits, the next one to wait reads. */
  #look(): void {
    this.#dirty = true
    if (this.#reading) return
    if (this.#waiting.size > 0) void this.#readNew()
    else this.#rested = true
  }

  async #readNew(): Promise<void> {
    this.#reading = true
    while (this.#dirty) {
      this.#dirty = false
      try {
        if (this.#rested) await this.#skipFarBehind()
        await this.#appendNew()
      } catch (error) {
        this.#log.warn({ err: error }, 'the change feed cannot be read; it is tried again')
        this.#retry ??= setTimeout(() => {
          this.#retry = null
          this.#look()
        }, retryMs)
      }
    }
    this.#reading = false // in the same turn as the last look at #dirty: no commit comes in between
  }

  /** After a rest there may be more than is kept in memory: each stream reads that for itself. */
  async #skipFarBehind(): Promise<void> {
    const newest = await this.newest()
    this.#rested = false
    if (newest - this.#last <= recentEvents) return
    this.#recent = []
    this.#last = newest
    this.#wakeAll()
  }

  async #appendNew(): Promise<void> {
    for (;;) {
      const events = (await listEvents(this.#store.read, this.#last, pageSize)).map(render)
      const newest = events.at(-1)
      if (newest === undefined) return
      this.#recent.push(...events)
      if (this.#recent.length > 2 * recentEvents) this.#recent = this.#recent.slice(-recentEvents)
      this.#last = newest.sequence
      this.#wakeAll()
    }
  }

  #wakeAll(): void {
    this.#news = true
    if (!this.#waking) void this.#wakeInSlices()
  }

  /** Each stream that wakes writes to its client: other requests get their turn in between, and news gather meanwhile. */
  async #wakeInSlices(): Promise<void> {
    this.#waking = true
    while (this.#news) {
      this.#news = false
      const waiting = [...this.#waiting]
      for (let start = 0; start < waiting.length; start += wokenAtOnce) {
        if (start > 0) await immediate()
        for (const wake of waiting.slice(start, start + wokenAtOnce)) wake()
      }
      if (waiting.length > wokenAtOnce) await delay(waiting.length * pausePerStreamMs, undefined, { ref: false })
    }
    this.#waking = false
  }
}

function pageOf(events: readonly FeedEvent[], resourceId?: string): { texts: string[]; position: number } | null {
  const last = events.at(-1)
  if (last === undefined) return null
  const wanted = resourceId === undefined ? events : events.filter((event) => event.resourceId === resourceId)
  return { texts: wanted.map(({ text }) => text), position: last.sequence }
}

/** As the event stream format wants it (https://html.spec.whatwg.org/multipage/server-sent-events.html). */
function render(event: StoredEvent): FeedEvent {
  const data = JSON.stringify({
    sequence: event.sequence,
    type: event.type,
    resource_id: event.resource_id,
    at: toRfc3339(event.at),
    detail: event.detail,
  })
  return {
    sequence: event.sequence,
    resourceId: event.resource_id,
    text: `id: ${event.sequence}\nevent: ${event.type}\ndata: ${data}\n\n`,
  }
}

/** Index of the first event behind a sequence number. */
function firstBehind(events: readonly FeedEvent[], after: number): number {
  let low = 0
  let high = events.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((events[middle]?.sequence ?? 0) <= after) low = middle + 1
    else high = middle
  }
  return low
}
