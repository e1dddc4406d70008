import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import { withExamples } from '../command/help.ts'
import { CliError, exitCodes } from '../exit-codes.ts'
import type { CliIo } from '../io.ts'
import { type OutputFlags, print, withOutput } from '../output/output.ts'
import { type Column, formatAge, renderTable } from '../output/table.ts'
import { printableLine } from '../output/terminal-text.ts'
import { call, openSession } from '../session.ts'

type Orphan = Schemas['Orphan']

const columns: readonly Column<Orphan>[] = [
  { header: 'KIND', cell: ({ kind }) => kind },
  { header: 'NAME', cell: ({ name }) => name },
  { header: 'HOST', cell: (orphan) => orphan.host_id },
  { header: 'DETAIL', cell: ({ detail }) => detail },
]

/** `berth orphans`: what exists and nothing explains; exit code 1 when there is any, so that a script can ask. */
export function addOrphansCommand(program: Command, io: CliIo): void {
  const command = program.command('orphans').description('what is left over; exit code 1 when there is anything')
  withOutput(command).action(async (flags: OutputFlags, self: Command) => {
    const session = openSession(io, self)
    const found = await call(session, session.client.GET('/v1/orphans'))
    if (flags.quiet) io.stdout.write(found.items.map(({ name }) => `${printableLine(name)}\n`).join(''))
    else print(io, flags, found, () => (found.items.length === 0 ? '' : renderTable(columns, found.items)))
    if (flags.output === 'table' && !flags.quiet) {
      for (const { host_id, looked_at } of found.hosts) {
        const when = looked_at === '' ? 'has not looked yet' : `looked ${formatAge(looked_at, io.now())} ago`
        io.stderr.write(`${host_id} ${when}\n`)
      }
    }
    if (found.items.length > 0) throw new CliError(exitCodes.failed, `${found.items.length} left over`)
  })
  withExamples(
    command,
    ['berth orphans', 'berth orphans -o json | jq .hosts'],
    `It lists what exists and no resource explains: in the database as it is now,
and on each host as it last looked, which it does once a minute. There should
be nothing.`,
  )
}
