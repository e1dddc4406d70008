import type { Command } from 'commander'
import type { CommandSource } from './command/on-demand.ts'
import type { CliIo } from './io.ts'

/**
 * Set up a program that has no commands yet: those that are added take its output over, and throw in place of ending the
 * process, for runProgram to map.
 */
export function setUpProgram(program: Command, io: CliIo): Command {
  return program
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
}

/** The commands that talk to a server, in the order of the help. */
export function clientCommands(io: CliIo): CommandSource[] {
  return [
    {
      names: ['instance'],
      add: async (program) => (await import('./resources/instances.ts')).addInstanceCommands(program, io),
    },
    { names: ['ssh'], add: async (program) => (await import('./resources/ssh.ts')).addSshCommand(program, io) },
    {
      names: ['ssh-key'],
      add: async (program) => (await import('./resources/ssh-keys.ts')).addSshKeyCommands(program, io),
    },
    { names: ['image'], add: async (program) => (await import('./resources/images.ts')).addImageCommands(program, io) },
    {
      names: ['type'],
      add: async (program) => (await import('./resources/instance-types.ts')).addInstanceTypeCommands(program, io),
    },
    { names: ['vpc'], add: async (program) => (await import('./resources/vpcs.ts')).addVpcCommands(program, io) },
    {
      names: ['subnet'],
      add: async (program) => (await import('./resources/subnets.ts')).addSubnetCommands(program, io),
    },
    {
      names: ['security-group'],
      add: async (program) => (await import('./resources/security-groups.ts')).addSecurityGroupCommands(program, io),
    },
    {
      names: ['network'],
      add: async (program) => (await import('./resources/network.ts')).addNetworkCommands(program, io),
    },
    {
      names: ['public-ip'],
      add: async (program) => (await import('./resources/public-ips.ts')).addPublicIpCommands(program, io),
    },
    { names: ['host'], add: async (program) => (await import('./resources/hosts.ts')).addHostCommands(program, io) },
    {
      names: ['operation', 'op'],
      add: async (program) => (await import('./resources/operations.ts')).addOperationCommands(program, io),
    },
    { names: ['apply'], add: async (program) => (await import('./apply/command.ts')).addApplyCommand(program, io) },
    {
      names: ['event', 'events'],
      add: async (program) => (await import('./resources/events.ts')).addEventCommands(program, io),
    },
    {
      names: ['orphans'],
      add: async (program) => (await import('./resources/orphans.ts')).addOrphansCommand(program, io),
    },
    {
      names: ['status'],
      add: async (program) => (await import('./resources/status.ts')).addStatusCommand(program, io),
    },
    {
      names: ['metrics'],
      add: async (program) => (await import('./resources/status.ts')).addMetricsCommand(program, io),
    },
    {
      names: ['completion'],
      add: async (program) => (await import('./completion/completion.ts')).addCompletionCommand(program, io),
    },
    {
      names: ['__complete'],
      add: async (program, all) => (await import('./completion/completion.ts')).addCompleteCommand(program, io, all),
    },
  ]
}
