import type { EventResource } from '@berth/contract/event-kinds.ts'
import { CliError, exitCodes } from '../exit-codes.ts'
import type { OutputFlags } from '../output/output.ts'
import { type Column, renderRow, renderTable } from '../output/table.ts'
import { printableLine } from '../output/terminal-text.ts'
import type { Session } from '../session.ts'
import { followEvents } from './event-stream.ts'

/** A list that is kept current. */
export interface WatchedList<Item> {
  columns: (nowMs: number) => readonly Column<Item>[]
  list: () => Promise<readonly Item[]>
  get: (id: string) => Promise<Item>
  matches: (item: Item) => boolean
  /** Whose events change an item of this list. */
  kind: EventResource
  /** Kinds whose events change numbers that the list shows, so that it is read anew as a whole. */
  countsOf: readonly EventResource[]
  newestFirst: boolean
}

/** So many changed items are read one by one, more by reading the list anew. */
const mostSingleReads = 100
const readsAtOnce = 8

/** Reads that may fail one after the other while the server is away, and the pause between them, milliseconds. */
const mostFailures = 60
const retryEveryMs = 1000

type Change<Item> = { change: 'listed' | 'added' | 'changed' | 'removed'; item: Item }

/**
 * Show a list and keep it current from the event stream until the user asks to stop: drawn anew in place on a terminal,
 * elsewhere a line for each row that is listed, added, changed or removed (`-o json`: a document a line).
 */
export async function watchList<Item extends { id: string }>(
  session: Session,
  flags: OutputFlags,
  about: WatchedList<Item>,
): Promise<void> {
  const { io } = session
  const isTerminal = io.stdout.isTTY && flags.output === 'table'
  const display = isTerminal ? new TerminalDisplay(session, about) : new LineDisplay(session, flags, about)
  const items = new Map<string, Item>()
  const pending = new PendingChanges()
  const done = new AbortController()
  const pumped = pump(session, about, pending, done.signal)
  let failures = 0
  try {
    while (await pending.arrived()) {
      const changed = pending.take()
      const changes = await readChanges(items, changed, about).catch((error: unknown) => tolerate(error, ++failures))
      if (changes === null) {
        pending.addEverything()
        await io.pause(retryEveryMs)
        continue
      }
      failures = 0
      apply(items, changes)
      display.show(items, changes)
    }
  } catch (error) {
    if (!(error instanceof CliError) || error.exitCode !== exitCodes.interrupted) throw error
  } finally {
    done.abort()
    await pumped
  }
}

/** Null for a server that is away, as at a restart: the list is read again. Else, and in the long run, the error. */
function tolerate(error: unknown, failures: number): null {
  const isAway = error instanceof CliError && error.exitCode === exitCodes.unreachable
  if (!isAway || failures > mostFailures) throw error
  return null
}

async function readChanges<Item extends { id: string }>(
  items: ReadonlyMap<string, Item>,
  changed: 'everything' | readonly string[],
  about: WatchedList<Item>,
): Promise<Change<Item>[]> {
  if (changed === 'everything' || changed.length > mostSingleReads) {
    return difference(items, (await about.list()).filter(about.matches))
  }
  return readChanged(items, changed, about)
}

/** What the stream has told and the list has not yet followed. */
class PendingChanges {
  #ids = new Set<string>()
  #everything = false
  #ended = false
  #error: unknown = null
  #wake = Promise.withResolvers<void>()

  add(id: string): void {
    this.#ids.add(id)
    this.#wake.resolve()
  }

  addEverything(): void {
    this.#everything = true
    this.#wake.resolve()
  }

  end(error: unknown): void {
    this.#ended = true
    this.#error = error
    this.#wake.resolve()
  }

  /** Resolves when there is something to take; false when nothing will come any more. Throws what ended it. */
  async arrived(): Promise<boolean> {
    await this.#wake.promise
    if (this.#error !== null) throw this.#error
    return !this.#ended
  }

  take(): 'everything' | string[] {
    const taken = this.#everything ? 'everything' : [...this.#ids]
    this.#ids = new Set()
    this.#everything = false
    if (!this.#ended) this.#wake = Promise.withResolvers<void>()
    return taken
  }
}

async function pump<Item>(
  session: Session,
  about: WatchedList<Item>,
  pending: PendingChanges,
  signal: AbortSignal,
): Promise<void> {
  try {
    let isFirst = true
    for await (const item of followEvents(session, { signal })) {
      // the stream stands before the list is read the first time, so nothing is missed between the two
      if (item.kind === 'gap' || (item.kind === 'connected' && isFirst)) pending.addEverything()
      if (item.kind === 'connected') isFirst = false
      if (item.kind !== 'event') continue
      const [kind] = item.event.type.split('.')
      if (kind === about.kind) pending.add(item.event.resource_id)
      else if (about.countsOf.some((other) => other === kind)) pending.addEverything()
    }
    pending.end(null)
  } catch (error) {
    pending.end(error)
  }
}

function difference<Item extends { id: string }>(
  before: ReadonlyMap<string, Item>,
  now: readonly Item[],
): Change<Item>[] {
  const there = new Set(now.map((item) => item.id))
  const gone = [...before.values()].filter((item) => !there.has(item.id))
  return [
    ...gone.map((item) => ({ change: 'removed' as const, item })),
    ...now.flatMap((item) => changeOf(before.get(item.id), item, before.size === 0 ? 'listed' : 'added')),
  ]
}

async function readChanged<Item extends { id: string }>(
  before: ReadonlyMap<string, Item>,
  ids: readonly string[],
  about: WatchedList<Item>,
): Promise<Change<Item>[]> {
  const changes: Change<Item>[] = []
  for (let start = 0; start < ids.length; start += readsAtOnce) {
    const some = ids.slice(start, start + readsAtOnce)
    const read = await Promise.all(some.map(async (id) => ({ id, item: await find(about, id) })))
    for (const { id, item } of read) {
      const known = before.get(id)
      if (item !== null && about.matches(item)) changes.push(...changeOf(known, item, 'added'))
      else if (known !== undefined) changes.push({ change: 'removed', item: item ?? known })
    }
  }
  return changes
}

async function find<Item>(about: WatchedList<Item>, id: string): Promise<Item | null> {
  try {
    return await about.get(id)
  } catch (error) {
    if (error instanceof CliError && error.exitCode === exitCodes.notFound) return null
    throw error
  }
}

function changeOf<Item>(before: Item | undefined, item: Item, ifNew: 'listed' | 'added'): Change<Item>[] {
  if (before === undefined) return [{ change: ifNew, item }]
  return JSON.stringify(before) === JSON.stringify(item) ? [] : [{ change: 'changed', item }]
}

function apply<Item extends { id: string }>(items: Map<string, Item>, changes: readonly Change<Item>[]): void {
  for (const { change, item } of changes) {
    if (change === 'removed') items.delete(item.id)
    else items.set(item.id, item)
  }
}

interface Display<Item> {
  show(items: ReadonlyMap<string, Item>, changes: readonly Change<Item>[]): void
}

/** Draws the whole list again in place; what does not fit on the screen is counted. */
class TerminalDisplay<Item extends { id: string }> implements Display<Item> {
  readonly #session: Session
  readonly #about: WatchedList<Item>
  #drawnLines = 0

  constructor(session: Session, about: WatchedList<Item>) {
    this.#session = session
    this.#about = about
  }

  show(items: ReadonlyMap<string, Item>): void {
    const { stdout, now } = this.#session.io
    const sorted = [...items.values()].sort((a, b) => (a.id < b.id ? -1 : 1))
    if (this.#about.newestFirst) sorted.reverse()
    const lines = renderTable(this.#about.columns(now()), sorted).trimEnd().split('\n')
    const room = Math.max(2, stdout.rows - 1)
    const shown = lines.length <= room ? lines : [...lines.slice(0, room - 1), `… and ${lines.length - room + 1} more`]
    const up = this.#drawnLines === 0 ? '' : `\u001b[${this.#drawnLines}A`
    // a line that wraps would make the next drawing start at the wrong place
    const text = shown.map((line) => `${line.slice(0, stdout.columns - 1)}\u001b[K\n`).join('')
    stdout.write(`${up}${text}\u001b[J`)
    this.#drawnLines = shown.length
  }
}

/** Writes a line for each change. */
class LineDisplay<Item extends { id: string }> implements Display<Item> {
  readonly #session: Session
  readonly #flags: OutputFlags
  readonly #about: WatchedList<Item>
  readonly #shown = new Map<string, string>()
  #widths: number[] | null = null

  constructor(session: Session, flags: OutputFlags, about: WatchedList<Item>) {
    this.#session = session
    this.#flags = flags
    this.#about = about
  }

  show(_items: ReadonlyMap<string, Item>, changes: readonly Change<Item>[]): void {
    const { stdout } = this.#session.io
    if (this.#flags.output === 'json') {
      stdout.write(changes.map((change) => `${JSON.stringify(change)}\n`).join(''))
      return
    }
    const news = changes.filter((change) => this.#isNews(change))
    const columns = this.#changeColumns(this.#session.io.now())
    const isFirst = this.#widths === null
    // what comes later may be wider than all that was there at first
    this.#widths = columns.map(({ header, cell }, i) =>
      Math.max(header.length, this.#widths?.[i] ?? 0, ...news.map((change) => printableLine(cell(change)).length)),
    )
    if (isFirst) {
      const headers = columns.map(({ header }) => header)
      stdout.write(renderRow(headers, this.#widths))
    }
    for (const change of news) {
      const cells = columns.map(({ cell }) => printableLine(cell(change)) || '-')
      stdout.write(renderRow(cells, this.#widths))
    }
  }

  #changeColumns(nowMs: number): Column<Change<Item>>[] {
    return [
      { header: 'CHANGE', cell: ({ change }) => change },
      ...this.#about.columns(nowMs).map(({ header, cell }) => ({
        header,
        cell: ({ item }: Change<Item>) => cell(item),
      })),
    ]
  }

  /** A change of the document that no column shows is not told; ages do not count. */
  #isNews({ change, item }: Change<Item>): boolean {
    const text = this.#about
      .columns(0)
      .map(({ cell }) => cell(item))
      .join('\0')
    if (change === 'removed') return this.#shown.delete(item.id)
    if (this.#shown.get(item.id) === text) return false
    this.#shown.set(item.id, text)
    return true
  }
}
