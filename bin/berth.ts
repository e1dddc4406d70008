import { processIo, runProgram } from '@berth/cli/io.ts'
import { addClientCommands } from '@berth/cli/program.ts'
import { Command } from 'commander'
import { addDatabaseCommands } from './database-options.ts'
import { addDevCommand } from './dev/command.ts'
import { addHostImageCommands } from './image-command.ts'

/** `berth`: the client commands, and those that run on the host itself. */
const program = new Command('berth')
  .description('a compute cloud for your own machines')
  .version('0.1.0')
  .showHelpAfterError('(run with --help to see how)')
const io = processIo()
addDevCommand(program)
addDatabaseCommands(program)
addClientCommands(program, io)
const image = program.commands.find((command) => command.name() === 'image')
if (image === undefined) throw new Error('the client commands have no group `image`')
addHostImageCommands(image)
const exitCode = await runProgram(program, process.argv, io)
process.exitCode = exitCode === 0 ? (process.exitCode ?? 0) : exitCode
