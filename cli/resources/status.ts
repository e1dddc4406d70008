import type { Command } from 'commander'
import { withExamples } from '../command/help.ts'
import type { CliIo } from '../io.ts'
import { call, openSession } from '../session.ts'

/** `berth status`: whether a server is there and can serve. */
export function addStatusCommand(program: Command, io: CliIo): void {
  const command = program
    .command('status')
    .description('whether the server is there and can serve; exit code 69 if not')
    .action(async (_flags: object, self: Command) => {
      const session = openSession(io, self)
      await call(session, session.client.GET('/healthz'))
      await call(session, session.client.GET('/readyz'))
      io.stdout.write(`${session.url} is ready\n`)
    })
  withExamples(command, ['berth status', 'until berth status; do sleep 1; done'])
}

/** `berth metrics`: the figures of server and agent, as Prometheus reads them. */
export function addMetricsCommand(program: Command, io: CliIo): void {
  const command = program
    .command('metrics')
    .description('the figures of server and agent in the text format of Prometheus')
    .action(async (_flags: object, self: Command) => {
      const session = openSession(io, self)
      io.stdout.write(await call(session, session.client.GET('/metrics', { parseAs: 'text' })))
    })
  withExamples(command, ['berth metrics', 'berth metrics | grep berth_instances'])
}
