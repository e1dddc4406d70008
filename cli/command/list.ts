import type { EventResource } from '@berth/contract/event-kinds.ts'
import { LabelSelectorError, matchesLabels, parseLabelSelector } from '@berth/contract/label-selector.ts'
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { CliIo } from '../io.ts'
import { watchList } from '../live/watch.ts'
import { type OutputFlags, print, withOutput } from '../output/output.ts'
import { type Column, renderTable } from '../output/table.ts'
import { openSession, type Session } from '../session.ts'
import { integer, resourceName } from './arguments.ts'
import { withExamples } from './help.ts'

/** Columns may tell ages, so they are made for a moment. */
export type Columns<Item> = (nowMs: number) => readonly Column<Item>[]

/** Most items of one page of the API. */
const pageLimit = 1000

/** What the query of every list can say; `name` and `label_selector` only of resources with metadata. */
export interface ListQuery {
  limit?: number
  cursor?: string
  name?: string
  label_selector?: string
}

interface Page<Item> {
  items: Item[]
  next_cursor?: string
}

/** The flags of every list. */
export interface ListFlags extends OutputFlags {
  selector?: string
  name?: string
  limit?: number
  cursor?: string
  watch?: true
}

/** What a list needs to know to be kept current with `--watch`. */
export interface Watchable<Item, Filter> {
  kind: EventResource
  get: (session: Session, id: string) => Promise<Item>
  /** Whether the resource's own filters hold of an item; those by name and label are looked at for all. */
  matches?: (item: Item, filter: Filter) => boolean
  /** Kinds whose changes show in the numbers of this list. */
  countsOf?: readonly EventResource[]
  newestFirst?: boolean
}

export interface ListAbout<Item, Filter, Flags> {
  nouns: string
  columns: Columns<Item>
  page: (session: Session, query: ListQuery & Partial<Filter>) => Promise<Page<Item>>
  /** Whether items have metadata, and so can be chosen by name and label. */
  labelled: boolean
  /** Adds the options of the resource's own filters. */
  options?: (command: Command) => Command
  /** The resource's own filters out of the flags. */
  filter?: (session: Session, flags: Flags) => Promise<Partial<Filter>>
  /** Absent where the event stream does not tell of the resource. */
  watch?: Watchable<Item, Partial<Filter>>
  examples: readonly string[]
}

/** `list`: everything, page after page, or the part that is asked for. */
export function addListCommand<
  Item extends { id: string },
  Filter extends object = object,
  Flags extends object = object,
>(group: Command, io: CliIo, about: ListAbout<Item, Filter, Flags>): void {
  const command = group.command('list').alias('ls').description(`list ${about.nouns}`)
  if (about.labelled) {
    command
      .option('-l, --selector <selector>', 'only those whose labels match, as a=b,c!=d,e in (x,y),f,!g', labelSelector)
      .option('--name <name>', 'only those with a name', resourceName)
  }
  about.options?.(command)
  command
    .option('--limit <n>', 'only the first ones', integer({ minimum: 1, maximum: 1_000_000 }))
    .option('--cursor <cursor>', 'go on behind the next_cursor of a list with --limit')
  if (about.watch !== undefined) {
    command.addOption(
      new Option(
        '-w, --watch',
        'keep the list current until Ctrl-C; lines of changes where there is no terminal',
      ).conflicts(['limit', 'cursor', 'quiet']),
    )
  }
  withOutput(command).action(async (flags: ListFlags & Flags, self: Command) => {
    const session = openSession(io, self)
    const filter: Partial<Filter> = about.filter === undefined ? {} : await about.filter(session, flags)
    const query = { ...chosenBy(flags), ...filter }
    if (flags.watch && about.watch !== undefined) {
      const { kind, get, matches, countsOf = [], newestFirst = false } = about.watch
      const requirements = parseLabelSelector(flags.selector ?? '')
      return watchList(session, flags, {
        columns: about.columns,
        list: async () => (await readPages((page) => about.page(session, { ...query, ...page }))).items,
        get: (id) => get(session, id),
        matches: (item) =>
          (flags.name === undefined || metadataOf(item).name === flags.name) &&
          matchesLabels(metadataOf(item).labels, requirements) &&
          (matches === undefined || matches(item, filter)),
        kind,
        countsOf,
        newestFirst,
      })
    }
    const list = await readPages((page) => about.page(session, { ...query, ...page }), flags)
    print(io, flags, list, () => renderTable(about.columns(io.now()), list.items))
    if (list.next_cursor !== undefined && flags.output === 'table') {
      io.stderr.write(`there are more; go on with --cursor ${list.next_cursor}\n`)
    }
  })
  withExamples(command, about.examples)
}

/** Page after page up to a limit; `next_cursor` is there when the limit has left some out. */
export async function readPages<Item>(
  read: (page: { limit?: number; cursor?: string }) => Promise<Page<Item>>,
  { limit = Number.POSITIVE_INFINITY, cursor }: { limit?: number; cursor?: string } = {},
): Promise<Page<Item>> {
  const items: Item[] = []
  for (let next = cursor; ; ) {
    const left = limit - items.length
    const page = await read({
      ...(left >= pageLimit ? {} : { limit: left }),
      ...(next === undefined ? {} : { cursor: next }),
    })
    items.push(...page.items)
    next = page.next_cursor
    if (next === undefined) return { items }
    if (items.length >= limit) return { items, next_cursor: next }
  }
}

function chosenBy(flags: ListFlags): ListQuery {
  return {
    ...(flags.name === undefined ? {} : { name: flags.name }),
    ...(flags.selector === undefined ? {} : { label_selector: flags.selector }),
  }
}

/** Name and labels of an item; of one without metadata they are empty, and nothing can be asked of them. */
function metadataOf(item: object): { name: string; labels: Record<string, string> } {
  const metadata: unknown = Reflect.get(item, 'metadata')
  return { name: '', labels: {}, ...(typeof metadata === 'object' ? metadata : null) }
}

/** A label selector as it is; faults are found here, before anything is sent. */
export function labelSelector(text: string): string {
  try {
    parseLabelSelector(text)
    return text
  } catch (error) {
    if (error instanceof LabelSelectorError) throw new InvalidArgumentError(`It ${error.message}.`)
    throw error
  }
}
