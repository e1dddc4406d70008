import type { Command } from 'commander'
import { resourceId } from './arguments.ts'
import type { CliIo } from './io.ts'
import { type OutputFlags, print, withOutput } from './output.ts'
import { openSession, type Session } from './session.ts'
import { type Column, renderTable } from './table.ts'

/** Columns may tell ages, so they are made for a moment. */
export type Columns<Item> = (nowMs: number) => readonly Column<Item>[]

/** `list`: one table of everything. */
export function addListCommand<Item>(
  group: Command,
  io: CliIo,
  about: { nouns: string; columns: Columns<Item>; list: (session: Session) => Promise<{ items: Item[] }> },
): void {
  withOutput(group.command('list').alias('ls').description(`list ${about.nouns}`)).action(
    async (flags: OutputFlags, command: Command) => {
      const document = await about.list(openSession(io, command))
      print(io, flags, document, () => renderTable(about.columns(io.now()), document.items))
    },
  )
}

/** `show ID`: all there is to know about one. */
export function addShowCommand<Item>(
  group: Command,
  io: CliIo,
  about: { noun: string; get: (session: Session, id: string) => Promise<Item>; render: (item: Item) => string },
): void {
  withOutput(
    group.command('show').description(`show ${about.noun}`).argument('<id>', `id of ${about.noun}`, resourceId),
  ).action(async (id: string, flags: OutputFlags, command: Command) => {
    const item = await about.get(openSession(io, command), id)
    print(io, flags, item, () => about.render(item))
  })
}

/** `delete ID`, of something that nothing uses. */
export function addDeleteCommand(
  group: Command,
  io: CliIo,
  about: { noun: string; remove: (session: Session, id: string) => Promise<unknown> },
): void {
  group
    .command('delete')
    .alias('rm')
    .description(`delete ${about.noun} that nothing uses`)
    .argument('<id>', `id of ${about.noun}`, resourceId)
    .action(async (id: string, _flags: object, command: Command) => {
      await about.remove(openSession(io, command), id)
      io.stderr.write(`deleted ${id}\n`)
    })
}
