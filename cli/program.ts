import type { Command } from 'commander'
import { addApplyCommand } from './apply/apply.ts'
import { addCompletionCommands } from './completion/completion.ts'
import type { CliIo } from './io.ts'
import { addEventCommands } from './resources/events.ts'
import { addHostCommands } from './resources/hosts.ts'
import { addImageCommands } from './resources/images.ts'
import { addInstanceTypeCommands } from './resources/instance-types.ts'
import { addInstanceCommands } from './resources/instances.ts'
import { addNetworkCommands } from './resources/network.ts'
import { addOperationCommands } from './resources/operations.ts'
import { addOrphansCommand } from './resources/orphans.ts'
import { addPublicIpCommands } from './resources/public-ips.ts'
import { addSecurityGroupCommands } from './resources/security-groups.ts'
import { addSshCommand } from './resources/ssh.ts'
import { addSshKeyCommands } from './resources/ssh-keys.ts'
import { addMetricsCommand, addStatusCommand } from './resources/status.ts'
import { addSubnetCommands } from './resources/subnets.ts'
import { addVpcCommands } from './resources/vpcs.ts'

/**
 * Add the commands that talk to a server. The program's own output and its way to end are set too, for all its commands:
 * it throws in place of ending the process, for runProgram to map.
 */
export function addClientCommands(program: Command, io: CliIo): void {
  program
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
      outputError: (text, write) => write(text.replace(/^error: /, 'berth: ')),
      getOutHelpWidth: () => io.stdout.columns,
      getErrHelpWidth: () => io.stderr.columns,
    })
    .option('--server <url>', 'server to talk to (env: BERTH_SERVER, default: http://127.0.0.1:7480)')
    .addHelpText(
      'after',
      `
Exit codes: 0 done, 1 failed, 2 usage, 4 not found, 5 conflict, 6 timeout,
69 no server, 77 needs root; ssh passes on its own.`,
    )
  // commands that are added later take these settings over by themselves
  for (const command of program.commands) command.copyInheritedSettings(program)
  addInstanceCommands(program, io)
  addSshCommand(program, io)
  addSshKeyCommands(program, io)
  addImageCommands(program, io)
  addInstanceTypeCommands(program, io)
  addVpcCommands(program, io)
  addSubnetCommands(program, io)
  addSecurityGroupCommands(program, io)
  addNetworkCommands(program, io)
  addPublicIpCommands(program, io)
  addHostCommands(program, io)
  addOperationCommands(program, io)
  addApplyCommand(program, io)
  addEventCommands(program, io)
  addOrphansCommand(program, io)
  addStatusCommand(program, io)
  addMetricsCommand(program, io)
  addCompletionCommands(program, io)
}
