import type { CommandSource } from '@berth/cli/command/on-demand.ts'
import { processIo, runProgram } from '@berth/cli/io.ts'
import { clientCommands, setUpProgram } from '@berth/cli/program.ts'
import { Command } from 'commander'

/** `berth`: the client commands, and those that run on the host itself. */
const program = new Command('berth')
  .description('a compute cloud for your own machines')
  .version('0.1.0')
  .showHelpAfterError('(run with --help to see how)')
const io = processIo()
setUpProgram(program, io)

const commands: CommandSource[] = [
  { names: ['dev'], add: async () => (await import('./dev/command.ts')).addDevCommand(program) },
  { names: ['database'], add: async () => (await import('./database-options.ts')).addDatabaseCommands(program) },
  ...clientCommands(io).map((source) => (source.names[0] === 'image' ? withHostCommands(source) : source)),
]
const exitCode = await runProgram(program, commands, process.argv, io)
process.exitCode = exitCode === 0 ? (process.exitCode ?? 0) : exitCode

/** The group `image` with the commands that work on the host's own images. */
function withHostCommands(source: CommandSource): CommandSource {
  return {
    ...source,
    add: async (_program, all) => {
      await source.add(program, all)
      const image = program.commands.find((command) => command.name() === 'image')
      if (image === undefined) throw new Error('the client commands have no group `image`')
      const { addHostImageCommands } = await import('./image-command.ts')
      addHostImageCommands(image)
    },
  }
}
