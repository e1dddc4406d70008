import { Command } from 'commander'

/** `berth`: dev, the commands of a host, and the client commands. Each part is loaded only when it is asked for. */
const program = new Command('berth')
  .description('a compute cloud for your own machines')
  .version('0.1.0')
  .showHelpAfterError('(run with --help to see how)')

const { addClientCommands } = await import('@berth/cli/program.ts')
const { processIo, runProgram } = await import('@berth/cli/io.ts')
const { addDevCommand } = await import('./dev-command.ts')
const { addHostImageCommands } = await import('./image-command.ts')
const io = processIo()
addClientCommands(program, io)
addDevCommand(program)
const image = program.commands.find((command) => command.name() === 'image')
if (image !== undefined) addHostImageCommands(image)
process.exitCode = (await runProgram(program, process.argv, io)) || process.exitCode || 0
