import { eventActions, eventResources } from '@berth/contract/event-kinds.ts'
import type { Event } from '@berth/contract/events.ts'
import { type Command, InvalidArgumentError } from 'commander'
import { integer, repeated, resourceId } from '../command/arguments.ts'
import { withExamples } from '../command/help.ts'
import type { CliIo } from '../io.ts'
import { followEvents } from '../live/event-stream.ts'
import { type OutputFlags, withOutput } from '../output/output.ts'
import { renderRow } from '../output/table.ts'
import { printableLine } from '../output/terminal-text.ts'
import { openSession } from '../session.ts'

interface WatchFlags extends OutputFlags {
  resource?: string
  type?: string[]
  after?: number
  count?: number
}

/** Widths of the columns: a stream does not know what comes, so they are those of the longest usual values. */
const widths = [8, 20, 22, 25]

/** `berth event`: every change, as it happens. */
export function addEventCommands(program: Command, io: CliIo): void {
  const group = withExamples(program.command('event').alias('events').description('every change, as it happens'), [
    'berth event watch',
    'berth events --resource inst-… -o json | jq .detail.state',
  ])
  const watch = group
    .command('watch', { isDefault: true })
    .description('print events until Ctrl-C')
    .option('--resource <id>', 'only events of a resource', resourceId)
    .option('--type <type>', 'only a type, as instance or instance.deleted; may be repeated', eventTypes)
    .option(
      '--after <sequence>',
      'begin behind an event; 0 is the oldest that is kept',
      integer({ minimum: 0, maximum: 9_999_999_999 }),
    )
    .option('--count <n>', 'end after so many events', integer({ minimum: 1, maximum: 1_000_000 }))
  withOutput(watch).action(async (flags: WatchFlags, self: Command) => {
    const { resource: resourceId, type: types, after, count = Number.POSITIVE_INFINITY } = flags
    let seen = 0
    if (flags.output === 'table' && !flags.quiet) {
      io.stdout.write(renderRow(['SEQUENCE', 'AT', 'TYPE', 'RESOURCE', 'DETAIL'], widths))
    }
    for await (const item of followEvents(openSession(io, self), { after, resourceId })) {
      if (item.kind === 'gap') {
        io.stderr.write('events are missing here; list what you follow anew\n')
        if (flags.output === 'json') io.stdout.write(`${JSON.stringify({ type: 'reset', sequence: item.sequence })}\n`)
      }
      if (item.kind !== 'event' || !isOfType(item.event, types)) continue
      printEvent(io, flags, item.event)
      if (++seen >= count) return
    }
  })
  withExamples(
    watch,
    [
      'berth event watch',
      'berth event watch --type instance --type operation.updated',
      'berth event watch --after 0 --count 100 -o json',
    ],
    `With -o json it prints one event a line. A broken connection is made anew and
goes on behind the last event. Events that the server no longer keeps are told
of as a line of the type reset.`,
  )
}

function printEvent(io: CliIo, flags: WatchFlags, event: Event): void {
  if (flags.quiet) io.stdout.write(`${event.resource_id}\n`)
  else if (flags.output === 'json') io.stdout.write(`${JSON.stringify(event)}\n`)
  else {
    const detail = Object.entries(event.detail).map(([key, value]) => `${key}=${value}`)
    const cells = [String(event.sequence), event.at, event.type, event.resource_id, detail.join(' ') || '-']
    io.stdout.write(renderRow(cells.map(printableLine), widths))
  }
}

function isOfType({ type }: Event, types: readonly string[] | undefined): boolean {
  return types === undefined || types.some((wanted) => type === wanted || type.startsWith(`${wanted}.`))
}

function eventTypes(text: string, previous?: string[]): string[] {
  const [resource, action, ...rest] = text.split('.')
  const known = eventResources.some((each) => each === resource)
  if (!known || rest.length > 0 || (action !== undefined && !eventActions.some((each) => each === action))) {
    throw new InvalidArgumentError(
      `It must be one of ${eventResources.join(', ')}, alone or with one of .${eventActions.join(', .')} behind it.`,
    )
  }
  return repeated(text, previous)
}
