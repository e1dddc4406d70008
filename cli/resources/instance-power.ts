import { graceSeconds } from '@berth/contract/instances/bounds.ts'
import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import { integer, timeoutSeconds } from '../command/arguments.ts'
import { withExamples } from '../command/help.ts'
import type { CliIo } from '../io.ts'
import { describe, followOperation, Patience } from '../live/follow.ts'
import { type OutputFlags, print, withOutput } from '../output/output.ts'
import { call, openSession, type Session } from '../session.ts'
import { type WaitFlag, withBootWait } from './instance-create.ts'
import { onInstance, resolveInstanceId } from './instance-lookup.ts'
import { printInstance } from './instance-view.ts'

/** `berth instance start|stop|reboot|delete`: what changes whether it runs. */
export function addInstancePowerCommands(group: Command, io: CliIo): void {
  addStart(group, io)
  addStop(group, io)
  addReboot(group, io)
  addDelete(group, io)
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
  const command = withBootWait(onInstance(group, 'start', 'start an instance'), 'running')
  withOutput(command).action(async (reference: string, flags: BootFlags, command: Command) => {
    const session = openSession(io, command)
    const path = { id: await resolveInstanceId(session, reference) }
    const accepted = await call(
      session,
      session.client.POST('/v1/instances/{id}/start', { params: { path }, body: {} }),
    )
    await finish(session, accepted, flags, 'starting')
  })
  withExamples(command, ['berth instance start web-1', 'berth instance start web-1 --wait ready --timeout 120'])
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
  withExamples(command, [
    'berth instance stop web-1',
    'berth instance stop web-1 --grace-seconds 10',
    'berth instance stop web-1 --force',
  ])
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
  withExamples(command, ['berth instance reboot web-1', 'berth instance reboot web-1 --force --wait ready'])
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
  withExamples(command, ['berth instance delete web-1', 'berth instance delete web-1 --grace-seconds 0 --no-wait'])
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
  if (instance.status.state !== 'terminated') return printInstance(io, flags, instance)
  io.stderr.write(`deleted ${describe(instance)}\n`)
  if (flags.output === 'json' || flags.quiet) print(io, flags, instance, () => '')
}
