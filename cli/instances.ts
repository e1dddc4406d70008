import { instanceStates } from '@berth/contract/instance-states.ts'
import { graceSeconds, type WaitTarget, waitTargets } from '@berth/contract/instances.ts'
import type { Schemas } from '@berth/sdk/client.ts'
import { type Command, Option } from 'commander'
import { instanceReference, integer, resourceName, timeoutSeconds } from './arguments.ts'
import { describe, followOperation, Patience, waitForInstance } from './follow.ts'
import { addInstanceCreateCommand, type WaitFlag, withBootWait } from './instance-create.ts'
import { findInstance, type InstanceFilter, listInstances, resolveInstanceId } from './instance-lookup.ts'
import { instanceColumns, renderInstance } from './instance-view.ts'
import type { CliIo } from './io.ts'
import { type OutputFlags, print, withOutput } from './output.ts'
import { call, openSession, type Session } from './session.ts'
import { renderTable } from './table.ts'
import { printable } from './terminal-text.ts'

type Instance = Schemas['Instance']

/** `berth instance`: virtual machines. */
export function addInstanceCommands(program: Command, io: CliIo): void {
  const group = program
    .command('instance')
    .description('virtual machines')
    .addHelpText(
      'after',
      `
Examples:
  berth instance create --name web-1 --type micro --image micro --ssh-key key-001
  berth instance list --state running
  berth instance stop web-1 --grace-seconds 10
  berth instance delete web-1
  id=$(berth instance create --type micro --image micro -o json | jq -r .id)

An instance is named by its name or its id. Progress goes to standard error.`,
    )
  addInstanceCreateCommand(group, io)
  addListAndShow(group, io)
  addStart(group, io)
  addStop(group, io)
  addReboot(group, io)
  addDelete(group, io)
  addWait(group, io)
  addConsoleLog(group, io)
}

function addListAndShow(group: Command, io: CliIo): void {
  withOutput(group.command('list').alias('ls').description('list instances, oldest first'))
    .addOption(
      new Option('--state <state>', 'only those in a state; terminated ones are shown only so').choices(instanceStates),
    )
    .option('--name <name>', 'only those with a name', resourceName)
    .action(async (flags: OutputFlags & InstanceFilter, command: Command) => {
      const { output: _, ...filter } = flags
      const list = await listInstances(openSession(io, command), filter)
      print(io, flags, list, () => renderTable(instanceColumns(io.now()), list.items))
    })

  withOutput(onInstance(group, 'show', 'show all about an instance')).action(
    async (reference: string, flags: OutputFlags, command: Command) => {
      const instance = await findInstance(openSession(io, command), reference)
      print(io, flags, instance, () => renderInstance(instance, io.now()))
    },
  )
}

interface BootFlags extends OutputFlags {
  wait: WaitFlag
  timeout: number
}

interface StopFlags extends OutputFlags {
  wait: boolean
  timeout: number
}

interface PowerFlags {
  force?: boolean
  graceSeconds?: number
}

function addStart(group: Command, io: CliIo): void {
  withOutput(withBootWait(onInstance(group, 'start', 'start an instance'), 'running')).action(
    async (reference: string, flags: BootFlags, command: Command) => {
      const session = openSession(io, command)
      const path = { id: await resolveInstanceId(session, reference) }
      const accepted = await call(
        session,
        session.client.POST('/v1/instances/{id}/start', { params: { path }, body: {} }),
      )
      await finish(session, accepted, flags, 'starting')
    },
  )
}

function addStop(group: Command, io: CliIo): void {
  const command = withPower(onInstance(group, 'stop', 'stop an instance: power button, then power off'))
  withOutput(withEndWait(command)).action(
    async (reference: string, flags: StopFlags & PowerFlags, command: Command) => {
      const session = openSession(io, command)
      const path = { id: await resolveInstanceId(session, reference) }
      const accepted = await call(
        session,
        session.client.POST('/v1/instances/{id}/stop', { params: { path }, body: powerBody(flags) }),
      )
      await finish(session, accepted, flags, 'stopping')
    },
  )
}

function addReboot(group: Command, io: CliIo): void {
  const command = withPower(onInstance(group, 'reboot', 'shut an instance down and boot it anew'))
  withOutput(withBootWait(command, 'running')).action(
    async (reference: string, flags: BootFlags & PowerFlags, command: Command) => {
      const session = openSession(io, command)
      const path = { id: await resolveInstanceId(session, reference) }
      const accepted = await call(
        session,
        session.client.POST('/v1/instances/{id}/reboot', { params: { path }, body: powerBody(flags) }),
      )
      await finish(session, accepted, flags, 'rebooting')
    },
  )
}

function addDelete(group: Command, io: CliIo): void {
  const command = withGrace(onInstance(group, 'delete', 'delete an instance and all it uses').alias('rm'))
  withOutput(withEndWait(command)).action(
    async (reference: string, flags: StopFlags & PowerFlags, command: Command) => {
      const session = openSession(io, command)
      const path = { id: await resolveInstanceId(session, reference) }
      const query = flags.graceSeconds === undefined ? {} : { grace_seconds: flags.graceSeconds }
      const accepted = await call(session, session.client.DELETE('/v1/instances/{id}', { params: { path, query } }))
      await finish(session, accepted, flags, 'deleting')
    },
  )
}

function addWait(group: Command, io: CliIo): void {
  withOutput(onInstance(group, 'wait', 'wait until an instance is in a state'))
    .addOption(
      new Option('--for <state>', 'ready: its first boot is over').choices(waitTargets).makeOptionMandatory(true),
    )
    .option('--timeout <seconds>', 'give up waiting after this time', timeoutSeconds, 600)
    .action(async (reference: string, flags: OutputFlags & { for: WaitTarget; timeout: number }, command: Command) => {
      const session = openSession(io, command)
      const instance = await findInstance(session, reference)
      const reached = await waitForInstance(session, instance, flags.for, new Patience(session, flags.timeout))
      printRow(io, flags, reached)
    })
}

const tailLines = integer({ minimum: 1, maximum: 100_000 })

function addConsoleLog(group: Command, io: CliIo): void {
  onInstance(group, 'console-log', 'print the serial output of an instance, the last 256 KiB')
    .option('--tail <lines>', 'only the last lines', tailLines)
    .action(async (reference: string, flags: { tail?: number }, command: Command) => {
      const session = openSession(io, command)
      const path = { id: await resolveInstanceId(session, reference) }
      const params = { path, query: flags }
      const request = session.client.GET('/v1/instances/{id}/console-log', { params, parseAs: 'text' })
      const text = (await call<string | undefined>(session, request)) ?? '' // an empty body has no document
      if (text === '') io.stderr.write('it has written nothing yet\n')
      // a guest writes what it likes, also what would drive the terminal of who reads it
      io.stdout.write(io.stdout.isTTY ? printable(text) : text)
    })
}

function onInstance(group: Command, name: string, description: string): Command {
  return group
    .command(name)
    .description(description)
    .argument('<name|id>', 'name or id of an instance', instanceReference)
}

function withGrace(command: Command): Command {
  const { minimum, maximum } = graceSeconds
  return command.option(
    '--grace-seconds <n>',
    'time for the guest between power button and power off',
    integer({ minimum, maximum }),
  )
}

function withPower(command: Command): Command {
  return withGrace(command).option('--force', 'power off at once, as pulling the plug')
}

function withEndWait(command: Command): Command {
  return command
    .option('--no-wait', 'print the id of the operation and return at once')
    .option('--timeout <seconds>', 'give up waiting after this time', timeoutSeconds, 600)
}

function powerBody(flags: PowerFlags): Schemas['PowerActionBody'] {
  return {
    ...(flags.force === undefined ? {} : { force: flags.force }),
    ...(flags.graceSeconds === undefined ? {} : { grace_seconds: flags.graceSeconds }),
  }
}

/** Follow what was accepted as far as the flags say, and print how the instance is then. */
async function finish(
  session: Session,
  accepted: Schemas['Accepted'],
  flags: OutputFlags & { wait: WaitFlag | boolean; timeout: number },
  doing: string,
): Promise<void> {
  const { io } = session
  if (flags.wait === false || flags.wait === 'none') {
    print(io, flags, accepted, () => `${accepted.operation_id}\n`)
    return
  }
  io.stderr.write(`${doing}; the operation is ${accepted.operation_id}\n`)
  const until = flags.wait === 'ready' ? 'ready' : 'ended'
  const instance = await followOperation(session, accepted.operation_id, until, new Patience(session, flags.timeout))
  if (instance.status.state !== 'terminated') return printRow(io, flags, instance)
  io.stderr.write(`deleted ${describe(instance)}\n`)
  if (flags.output === 'json') print(io, flags, instance, () => '')
}

function printRow(io: CliIo, flags: OutputFlags, instance: Instance): void {
  print(io, flags, instance, () => renderTable(instanceColumns(io.now()), [instance]))
}
