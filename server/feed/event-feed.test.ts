import { getEventListeners } from 'node:events'
import { pino } from 'pino'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Store } from '../store/store.ts'
import { engines, type TestDatabase } from '../store/testing/engines.ts'
import { EventFeed } from './event-feed.ts'

const log = pino({ level: 'silent' })

/** The id in the data of a rendered event. */
const resourceOf = (text: string): string => JSON.parse(/^data: (.*)$/m.exec(text)?.[1] ?? '{}').resource_id

describe.each(engines)('the change feed on $name', (engine) => {
  const open: TestDatabase[] = []
  beforeAll(() => engine.start())
  afterAll(() => engine.stop())
  afterEach(async () => {
    for (const database of open.splice(0)) await database.remove()
  })

  async function openFeed(): Promise<{ store: Store; feed: EventFeed }> {
    const database = await engine.create()
    open.push(database)
    const store = await database.open()
    return { store, feed: await EventFeed.open(store, log) }
  }

  /** Write events of these VPCs in one transaction. */
  const note = (store: Store, ...ids: string[]) =>
    store.write(async (tx) => {
      for (const id of ids) tx.changed({ resource: 'vpc', id, action: 'created' })
    })

  /** Every event behind a number, in the steps a stream reads them. */
  async function readOn(feed: EventFeed, after: number, count: number): Promise<{ ids: string[]; last: number }> {
    const ids: string[] = []
    let last = after
    while (ids.length < count) {
      await feed.changed(last, AbortSignal.timeout(10_000))
      const page = await feed.read(last)
      if (page === null) throw new Error(`only ${ids.length} came: ${ids.join(' ')}`)
      ids.push(...page.texts.map(resourceOf))
      last = page.position
    }
    return { ids, last }
  }

  test('it gives what is written, in its order, to who waits and to who comes later', async () => {
    const { store, feed } = await openFeed()
    const waiting = readOn(feed, 0, 3)
    await note(store, 'vpc-a', 'vpc-b')
    await note(store, 'vpc-c')
    expect((await waiting).ids).toEqual(['vpc-a', 'vpc-b', 'vpc-c'])
    expect((await readOn(feed, 0, 3)).ids).toEqual(['vpc-a', 'vpc-b', 'vpc-c'])
    expect(await feed.read(await feed.newest())).toBe(null)
    feed.close()
  })

  test('events of one resource are looked for among a bounded number of others at a time', async () => {
    const { store, feed } = await openFeed()
    const others = (count: number) => Array.from({ length: count }, (_, i) => `vpc-${i}`)
    for (let lot = 0; lot < 3; lot++) await note(store, ...others(4000))
    await note(store, 'vpc-rare', 'vpc-1')
    feed.close()
    const later = await EventFeed.open(store, log)
    const first = await later.read(0, 'vpc-rare')
    expect(first).toEqual({ texts: [], position: 10_000 })
    const second = await later.read(10_000, 'vpc-rare')
    expect(second?.texts.map(resourceOf)).toEqual(['vpc-rare'])
    expect(second?.position).toBe(await later.newest())
    expect(await later.read(second?.position ?? 0, 'vpc-rare')).toBe(null)
    later.close()
  })

  test('one that is opened later reads from the database what it has not in memory', async () => {
    const { store, feed } = await openFeed()
    await note(store, ...Array.from({ length: 1234 }, (_, i) => `vpc-${i}`))
    await readOn(feed, 0, 1234)
    const later = await EventFeed.open(store, log)
    await note(store, 'vpc-new')
    const { ids } = await readOn(later, 0, 1235)
    expect(ids).toEqual([...Array.from({ length: 1234 }, (_, i) => `vpc-${i}`), 'vpc-new'])
    feed.close()
    later.close()
  })

  test('a stream that waits for thousands of events leaves nothing behind on its signal', async () => {
    const { store, feed } = await openFeed()
    const controller = new AbortController()
    let position = 0
    for (let i = 0; i < 20; i++) {
      const waiting = feed.changed(position, controller.signal)
      expect(getEventListeners(controller.signal, 'abort')).toHaveLength(1)
      await note(store, `vpc-${i}`)
      await waiting
      position = await feed.newest()
    }
    expect(getEventListeners(controller.signal, 'abort')).toEqual([])
    feed.close()
  })

  test('a feed that could not be read is read again without another commit', async () => {
    const { store, feed } = await openFeed()
    const rename = (from: string, to: string) =>
      store.write(async (tx) => {
        await tx.db.schema.alterTable(from).renameTo(to).execute()
        tx.wake('vpc-a') // has the feed look
      })
    await note(store, 'vpc-a')
    await readOn(feed, 0, 1)
    await store.write(async (tx) => {
      await tx.db
        .insertInto('events')
        .values({ at: 0, type: 'vpc.created', resource_id: 'vpc-b', detail: '{}' })
        .execute()
    })
    const waiting = readOn(feed, 1, 1)
    await rename('events', 'hidden')
    await store.write((tx) => tx.db.schema.alterTable('hidden').renameTo('events').execute()) // wakes nobody
    expect((await waiting).ids).toEqual(['vpc-b'])
    feed.close()
  })

  test('a stream that comes after thousands of events that nobody waited for gets each of them, and what follows', async () => {
    const { store, feed } = await openFeed()
    await note(store, 'vpc-before')
    await readOn(feed, 0, 1)
    const missed = Array.from({ length: 5000 }, (_, i) => `vpc-${i}`)
    for (let start = 0; start < missed.length; start += 1000) await note(store, ...missed.slice(start, start + 1000))
    const { ids, last } = await readOn(feed, 0, 5001)
    expect(ids).toEqual(['vpc-before', ...missed])
    const following = readOn(feed, last, 2)
    await note(store, 'vpc-x')
    await note(store, 'vpc-y')
    expect((await following).ids).toEqual(['vpc-x', 'vpc-y'])
    feed.close()
  })
})
