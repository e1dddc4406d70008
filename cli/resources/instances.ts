import { type WaitTarget, waitTargets } from '@berth/contract/instances/bounds.ts'
import { instanceStates } from '@berth/contract/instances/states.ts'
import type { Schemas } from '@berth/sdk/client.ts'
import { type Command, Option } from 'commander'
import { instanceReference, integer, nameOrId, resourceId, resourceIds, timeoutSeconds } from '../command/arguments.ts'
import { withExamples } from '../command/help.ts'
import { addListCommand } from '../command/list.ts'
import { addShowCommand, addUpdateCommand, type Naming } from '../command/resource.ts'
import { CliError, exitCodes } from '../exit-codes.ts'
import type { CliIo } from '../io.ts'
import { Patience, waitForInstance } from '../live/follow.ts'
import { type OutputFlags, withOutput } from '../output/output.ts'
import { printable } from '../output/terminal-text.ts'
import { call, callForAnswer, openSession, type Session } from '../session.ts'
import { resolveHostId } from './hosts.ts'
import { addInstanceCreateCommand } from './instance-create.ts'
import { findInstance, onInstance, resolveInstanceId } from './instance-lookup.ts'
import { addMetrics } from './instance-metrics.ts'
import { addInstancePowerCommands } from './instance-power.ts'
import { instanceColumns, printInstance, renderInstance } from './instance-view.ts'

type Instance = Schemas['Instance']

const naming: Naming = {
  noun: 'an instance',
  argument: '<name|id>',
  parse: instanceReference,
  resolve: resolveInstanceId,
}

/** `berth instance`: virtual machines. */
export function addInstanceCommands(program: Command, io: CliIo): void {
  const group = withExamples(
    program.command('instance').description('virtual machines'),
    [
      'berth instance create --name web-1 --type micro --image micro --ssh-key key-001',
      'berth instance list --state running',
      'berth instance update web-1 --label env=test --add-security-group sg-web',
      'berth instance stop web-1 --grace-seconds 10',
      'berth instance delete web-1',
      'id=$(berth instance create --type micro --image micro -q)',
    ],
    'An instance is named by its name or its id. Progress goes to standard error.',
  )
  addInstanceCreateCommand(group, io)
  addList(group, io)
  addShowCommand(group, io, {
    ...naming,
    versioned: true,
    get,
    render: (instance) => renderInstance(instance, io.now()),
    examples: ['berth instance show web-1', 'berth instance show web-1 -o json', 'berth instance show web-1 --etag'],
  })
  addUpdate(group, io)
  addInstancePowerCommands(group, io)
  addWait(group, io)
  addConsoleLog(group, io)
  addMetrics(group, io)
}

interface InstanceFilter {
  state: Instance['status']['state']
  host_id: string
  vpc_id: string
  subnet_id: string
}

interface FilterFlags {
  state?: Instance['status']['state']
  host?: string
  vpc?: string
  subnet?: string
}

function addList(group: Command, io: CliIo): void {
  addListCommand<Instance, InstanceFilter, FilterFlags>(group, io, {
    nouns: 'instances, oldest first',
    columns: instanceColumns,
    labelled: true,
    options: (command) =>
      command
        .addOption(
          new Option('--state <state>', 'only those in a state; terminated ones are shown only so').choices(
            instanceStates,
          ),
        )
        .option('--host <name|id>', 'only those on a host', nameOrId)
        .option('--vpc <id>', 'only those in a private network', resourceId)
        .option('--subnet <id>', 'only those in a subnet', resourceId),
    filter: async (session, { state, host, vpc, subnet }: FilterFlags) => ({
      ...(state === undefined ? {} : { state }),
      ...(host === undefined ? {} : { host_id: await resolveHostId(session, host) }),
      ...(vpc === undefined ? {} : { vpc_id: vpc }),
      ...(subnet === undefined ? {} : { subnet_id: subnet }),
    }),
    page: (session, query) => call(session, session.client.GET('/v1/instances', { params: { query } })),
    watch: {
      kind: 'instance',
      get: async (session, id) => (await get(session, id)).data,
      matches: ({ spec, status }, filter) =>
        (filter.state === undefined ? status.state !== 'terminated' : status.state === filter.state) &&
        (filter.host_id === undefined || status.host_id === filter.host_id) &&
        (filter.vpc_id === undefined || spec.vpc_id === filter.vpc_id) &&
        (filter.subnet_id === undefined || spec.subnet_id === filter.subnet_id),
    },
    examples: [
      'berth instance list',
      'berth instance list -l env=prod,tier!=db --state running',
      'berth instance list --host rack-3 --watch',
      'berth instance list -l env=test -q | xargs -n1 berth instance delete',
    ],
  })
}

interface GroupFlags {
  securityGroup?: string[]
  addSecurityGroup?: string[]
  removeSecurityGroup?: string[]
}

function addUpdate(group: Command, io: CliIo): void {
  addUpdateCommand<Instance, { security_groups: string[] }, GroupFlags>(group, io, {
    ...naming,
    columns: instanceColumns,
    get,
    patch: (session, id, body, header) =>
      call(session, session.client.PATCH('/v1/instances/{id}', { params: { path: { id }, header }, body })),
    options: (command) =>
      command
        .option('--security-group <id>', 'groups in place of all that it has; may be repeated', resourceIds)
        .option('--add-security-group <id>', 'one more group; may be repeated', resourceIds)
        .option('--remove-security-group <id>', 'one group less; may be repeated', resourceIds),
    spec: async (flags: GroupFlags, present) => {
      const groups = await changedGroups(flags, present)
      return groups === null ? null : { security_groups: groups }
    },
    examples: [
      'berth instance update web-1 --name web-2 --label env=test --remove-label team',
      'berth instance update web-1 --add-security-group sg-ssh',
      'berth instance update web-1 --label env=prod --if-match "$(berth instance show web-1 --etag)"',
    ],
  })
}

async function changedGroups(flags: GroupFlags, present: () => Promise<Instance>): Promise<string[] | null> {
  const { securityGroup: whole, addSecurityGroup: added = [], removeSecurityGroup: removed = [] } = flags
  const partly = added.length + removed.length > 0
  if (whole !== undefined && partly) {
    throw new CliError(exitCodes.usage, 'security groups are replaced, or added and removed, not both at once')
  }
  if (!partly) return whole ?? null
  const groups = (await present()).spec.security_groups
  const missing = removed.find((id) => !groups.includes(id))
  if (missing !== undefined) throw new CliError(exitCodes.notFound, `the instance has no security group ${missing}`)
  return [...new Set([...groups.filter((id) => !removed.includes(id)), ...added])]
}

function addWait(group: Command, io: CliIo): void {
  const command = onInstance(group, 'wait', 'wait until an instance is in a state')
    .addOption(
      new Option('--for <state>', 'ready: its first boot is over').choices(waitTargets).makeOptionMandatory(true),
    )
    .option('--timeout <seconds>', 'give up waiting after this time', timeoutSeconds, 600)
  withOutput(command).action(
    async (reference: string, flags: OutputFlags & { for: WaitTarget; timeout: number }, self: Command) => {
      const session = openSession(io, self)
      const instance = await findInstance(session, reference)
      const reached = await waitForInstance(session, instance, flags.for, new Patience(session, flags.timeout))
      printInstance(io, flags, reached)
    },
  )
  withExamples(command, [
    'berth instance wait web-1 --for ready',
    'berth instance wait web-1 --for stopped --timeout 60',
  ])
}

const tailLines = integer({ minimum: 1, maximum: 100_000 })

function addConsoleLog(group: Command, io: CliIo): void {
  const command = onInstance(group, 'console-log', 'print the serial output of an instance, the last 256 KiB')
  command
    .option('--tail <lines>', 'only the last lines', tailLines)
    .action(async (reference: string, flags: { tail?: number }, self: Command) => {
      const session = openSession(io, self)
      const path = { id: await resolveInstanceId(session, reference) }
      const params = { path, query: flags }
      const request = session.client.GET('/v1/instances/{id}/console-log', { params, parseAs: 'text' })
      const text = (await call<string | undefined>(session, request)) ?? '' // an empty body has no document
      if (text === '') io.stderr.write('it has written nothing yet\n')
      // a guest writes what it likes, also what would drive the terminal of who reads it
      io.stdout.write(io.stdout.isTTY ? printable(text) : text)
    })
  withExamples(command, ['berth instance console-log web-1', 'berth instance console-log web-1 --tail 20'])
}

function get(session: Session, id: string) {
  return callForAnswer(session, session.client.GET('/v1/instances/{id}', { params: { path: { id } } }))
}
