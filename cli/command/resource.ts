import type { Command } from 'commander'
import { CliError, exitCodes } from '../exit-codes.ts'
import type { CliIo } from '../io.ts'
import { type OutputFlags, print, withOutput } from '../output/output.ts'
import { renderTable } from '../output/table.ts'
import { openSession, type Session } from '../session.ts'
import { etag, label, labelKey, repeated, resourceId, resourceName } from './arguments.ts'
import { withExamples } from './help.ts'
import type { Columns } from './list.ts'

/** A document with the answer that brought it, whose ETag names its version. */
export interface Versioned<Item> {
  data: Item
  response: Response
}

/** How a resource is named on the command line. */
export interface Naming {
  /** With its article: `a VPC`. */
  noun: string
  /** The argument, `<id>` unless given. */
  argument?: string
  parse?: (text: string) => string
  /** The id of what is named; what is named itself unless given. */
  resolve?: (session: Session, reference: string) => Promise<string>
}

/** `show ID`: all there is to know about one. */
export function addShowCommand<Item extends object>(
  group: Command,
  io: CliIo,
  about: Naming & {
    get: (session: Session, id: string) => Promise<Versioned<Item>>
    render: (item: Item) => string
    /** Whether its answers carry an ETag. */
    versioned: boolean
    examples: readonly string[]
  },
): void {
  const command = onResource(group.command('show').description(`show ${about.noun}`), about)
  if (about.versioned) command.option('--etag', 'print only its version, for the --if-match of update')
  withOutput(command).action(async (reference: string, flags: OutputFlags & { etag?: true }, self: Command) => {
    const session = openSession(io, self)
    const { data, response } = await about.get(session, await idOf(session, about, reference))
    if (flags.etag) io.stdout.write(`${response.headers.get('etag') ?? ''}\n`)
    else print(io, flags, data, () => about.render(data))
  })
  withExamples(command, about.examples)
}

/** `delete ID`, of something that nothing uses. */
export function addDeleteCommand(
  group: Command,
  io: CliIo,
  about: { noun: string; remove: (session: Session, id: string) => Promise<unknown>; examples: readonly string[] },
): void {
  const command = group
    .command('delete')
    .alias('rm')
    .description(`delete ${about.noun} that nothing uses`)
    .argument('<id>', `id of ${about.noun}`, resourceId)
    .action(async (id: string, _flags: object, self: Command) => {
      await about.remove(openSession(io, self), id)
      io.stderr.write(`deleted ${id}\n`)
    })
  withExamples(command, about.examples)
}

/** The part of a PATCH that every resource has. */
export interface PatchedMetadata {
  name?: string
  labels?: Record<string, string | null>
}

/** Header parameters of a PATCH. */
export interface IfMatch {
  'if-match'?: string
}

interface UpdateFlags extends OutputFlags {
  name?: string
  label?: Record<string, string>
  removeLabel?: string[]
  ifMatch?: string
}

export interface UpdateAbout<Item extends object, Spec extends object, Flags extends object> extends Naming {
  columns: Columns<Item>
  get: (session: Session, id: string) => Promise<Versioned<Item>>
  patch: (
    session: Session,
    id: string,
    body: { metadata?: PatchedMetadata; spec?: Spec },
    header: IfMatch,
  ) => Promise<Item>
  /** Adds the options of what else can be changed. */
  options?: (command: Command) => Command
  /**
   * What else the flags change, or null for nothing. Whoever asks for the present document makes the change depend on
   * it: another change in between is not undone.
   */
  spec?: (flags: Flags, present: () => Promise<Item>) => Promise<Spec | null>
  examples: readonly string[]
}

/** Times a change is worked out anew because another one came in between. */
const mostCollisions = 5

/** `update ID`: change what can be changed. */
export function addUpdateCommand<Item extends object, Spec extends object = never, Flags extends object = object>(
  group: Command,
  io: CliIo,
  about: UpdateAbout<Item, Spec, Flags>,
): void {
  const command = onResource(group.command('update').description(`change ${about.noun}`), about)
    .option('--name <name>', 'another name for people', resourceName)
    .option('--label <key=value>', 'set a label; may be repeated', label)
    .option('--remove-label <key>', 'remove a label; may be repeated', labelKeys)
  about.options?.(command)
  command.option('--if-match <etag>', 'only this version, as show --etag prints it; another one is a conflict', etag)
  withOutput(command).action(async (reference: string, flags: UpdateFlags & Flags, self: Command) => {
    const session = openSession(io, self)
    const id = await idOf(session, about, reference)
    const item = await change(session, id, flags, about)
    print(io, flags, item, () => renderTable(about.columns(io.now()), [item]))
  })
  withExamples(command, about.examples)
}

async function change<Item extends object, Spec extends object, Flags extends object>(
  session: Session,
  id: string,
  flags: UpdateFlags & Flags,
  about: UpdateAbout<Item, Spec, Flags>,
): Promise<Item> {
  const metadata = patchedMetadata(flags)
  for (let collisions = 0; ; collisions++) {
    let version = flags.ifMatch
    const present = async () => {
      const { data, response } = await about.get(session, id)
      version ??= response.headers.get('etag') ?? undefined
      return data
    }
    const spec = (await about.spec?.(flags, present)) ?? null
    if (metadata === null && spec === null) {
      throw new CliError(exitCodes.usage, 'there is nothing to change; name at least one option')
    }
    const body = { ...(metadata === null ? {} : { metadata }), ...(spec === null ? {} : { spec }) }
    try {
      return await about.patch(session, id, body, version === undefined ? {} : { 'if-match': version })
    } catch (error) {
      const collided = error instanceof CliError && error.exitCode === exitCodes.conflict
      const ownVersion = version !== undefined && flags.ifMatch === undefined
      if (!collided || !ownVersion || collisions === mostCollisions) throw error
    }
  }
}

function patchedMetadata(flags: UpdateFlags): PatchedMetadata | null {
  const { name, label: set = {}, removeLabel: removed = [] } = flags
  const both = removed.find((key) => Object.hasOwn(set, key))
  if (both !== undefined) throw new CliError(exitCodes.usage, `the label ${both} is both set and removed`)
  const labels: Record<string, string | null> = {
    ...set,
    ...Object.fromEntries(removed.map((key) => [key, null] as const)),
  }
  const patch = { ...(name === undefined ? {} : { name }), ...(Object.keys(labels).length === 0 ? {} : { labels }) }
  return Object.keys(patch).length === 0 ? null : patch
}

const labelKeys = (text: string, previous?: string[]) => repeated(labelKey(text), previous)

function onResource(command: Command, { noun, argument = '<id>', parse = resourceId }: Naming): Command {
  const how = argument === '<id>' ? 'id' : 'name or id'
  return command.argument(argument, `${how} of ${noun}`, parse)
}

async function idOf(session: Session, { resolve }: Naming, reference: string): Promise<string> {
  return resolve === undefined ? reference : resolve(session, reference)
}
