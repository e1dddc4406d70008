import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import { etag, instanceReference, resourceId, resourceName } from '../command/arguments.ts'
import { withExamples } from '../command/help.ts'
import { type MetadataFlags, metadataOf, withIdAndMetadata } from '../command/labels.ts'
import { addListCommand, type Columns } from '../command/list.ts'
import { addDeleteCommand, addShowCommand, addUpdateCommand, type IfMatch } from '../command/resource.ts'
import type { CliIo } from '../io.ts'
import { type OutputFlags, print, withOutput } from '../output/output.ts'
import { formatAge, formatLabels, renderFields, renderTable } from '../output/table.ts'
import { call, callForAnswer, openSession, type Session } from '../session.ts'
import { resolveInstanceId } from './instance-lookup.ts'

type PublicIp = Schemas['PublicIp']

const columns: Columns<PublicIp> = (now) => [
  { header: 'ID', cell: (publicIp) => publicIp.id },
  { header: 'NAME', cell: (publicIp) => (publicIp.metadata.name === publicIp.id ? '' : publicIp.metadata.name) },
  { header: 'ADDRESS', cell: (publicIp) => publicIp.status.address },
  { header: 'POOL', cell: (publicIp) => publicIp.spec.pool },
  { header: 'INSTANCE', cell: (publicIp) => publicIp.spec.instance_id },
  { header: 'AUTO', cell: (publicIp) => (publicIp.status.auto_assigned ? 'yes' : 'no') },
  { header: 'AGE', cell: (publicIp) => formatAge(publicIp.metadata.created_at, now) },
]

/** `berth public-ip`: addresses that instances are reached by from outside. */
export function addPublicIpCommands(program: Command, io: CliIo): void {
  const group = withExamples(
    program.command('public-ip').description('addresses that instances are reached by from outside'),
    [
      'berth public-ip create --id pip-web --instance web-1',
      'berth public-ip attach pip-web web-2',
      'berth public-ip list',
    ],
  )
  addCreate(group, io)
  addListCommand<PublicIp, { instance_id: string; pool: string }, { instance?: string; pool?: string }>(group, io, {
    nouns: 'public addresses',
    columns,
    labelled: true,
    options: (command) =>
      command
        .option('--instance <name|id>', 'only that of an instance', instanceReference)
        .option('--pool <name>', 'only those of a pool', resourceName),
    filter: async (session, { instance, pool }) => ({
      ...(instance === undefined ? {} : { instance_id: await resolveInstanceId(session, instance) }),
      ...(pool === undefined ? {} : { pool }),
    }),
    page: (session, query) => call(session, session.client.GET('/v1/public-ips', { params: { query } })),
    watch: {
      kind: 'public_ip',
      get: async (session, id) => (await get(session, id)).data,
      matches: ({ spec }, filter) =>
        (filter.instance_id === undefined || spec.instance_id === filter.instance_id) &&
        (filter.pool === undefined || spec.pool === filter.pool),
    },
    examples: ['berth public-ip list', 'berth public-ip list --instance web-1'],
  })
  addShowCommand(group, io, {
    noun: 'a public address',
    versioned: true,
    get,
    render: ({ id, metadata, spec, status }) =>
      renderFields([
        ['id', id],
        ['name', metadata.name],
        ['labels', formatLabels(metadata.labels)],
        ['created', metadata.created_at],
        ['address', status.address],
        ['pool', spec.pool],
        ['instance', spec.instance_id],
        ['auto-assigned', status.auto_assigned ? 'yes' : 'no'],
      ]),
    examples: ['berth public-ip show pip-web'],
  })
  addUpdateCommand(group, io, {
    noun: 'a public address',
    columns,
    get,
    patch,
    examples: ['berth public-ip update pip-web --name web --label env=prod'],
  })
  addAttach(group, io)
  addDetach(group, io)
  addDeleteCommand(group, io, {
    noun: 'a public address',
    remove: (session, id) => call(session, session.client.DELETE('/v1/public-ips/{id}', { params: { path: { id } } })),
    examples: ['berth public-ip delete pip-web'],
  })
}

function addCreate(group: Command, io: CliIo): void {
  const create = withIdAndMetadata(group.command('create').description('allocate a public address'), 'pip')
    .option('--pool <name>', 'pool to take it from; the first one when absent', resourceName)
    .option('--instance <name|id>', 'attach it to an instance', instanceReference)
  withOutput(create).action(
    async (flags: MetadataFlags & OutputFlags & { pool?: string; instance?: string }, self: Command) => {
      const session = openSession(io, self)
      const spec = {
        ...(flags.pool === undefined ? {} : { pool: flags.pool }),
        ...(flags.instance === undefined ? {} : { instance_id: await resolveInstanceId(session, flags.instance) }),
      }
      const body = { ...metadataOf(flags), spec }
      show(io, flags, await call(session, session.client.POST('/v1/public-ips', { body })))
    },
  )
  withExamples(create, [
    'berth public-ip create --id pip-web --instance web-1',
    'berth public-ip create --pool office --label env=prod',
  ])
}

interface ChangeFlags extends OutputFlags {
  ifMatch?: string
}

function addAttach(group: Command, io: CliIo): void {
  const attach = group
    .command('attach')
    .description('have an instance reached by a public address, in place of the one that had it')
    .argument('<id>', 'id of a public address', resourceId)
    .argument('<instance>', 'name or id of an instance', instanceReference)
  withVersion(attach).action(async (id: string, instance: string, flags: ChangeFlags, self: Command) => {
    const session = openSession(io, self)
    const spec = { instance_id: await resolveInstanceId(session, instance) }
    show(io, flags, await patch(session, id, { spec }, headerOf(flags)))
  })
  withExamples(attach, ['berth public-ip attach pip-web web-1'])
}

function addDetach(group: Command, io: CliIo): void {
  const detach = group
    .command('detach')
    .description('take a public address from its instance; it stays allocated')
    .argument('<id>', 'id of a public address', resourceId)
  withVersion(detach).action(async (id: string, flags: ChangeFlags, self: Command) => {
    const session = openSession(io, self)
    show(io, flags, await patch(session, id, { spec: { instance_id: '' } }, headerOf(flags)))
  })
  withExamples(detach, ['berth public-ip detach pip-web'])
}

function withVersion(command: Command): Command {
  const about = 'only this version, as show --etag prints it; another one is a conflict'
  return withOutput(command.option('--if-match <etag>', about, etag))
}

function headerOf({ ifMatch }: ChangeFlags): IfMatch {
  return ifMatch === undefined ? {} : { 'if-match': ifMatch }
}

function show(io: CliIo, flags: OutputFlags, publicIp: PublicIp): void {
  print(io, flags, publicIp, () => renderTable(columns(io.now()), [publicIp]))
}

function get(session: Session, id: string) {
  return callForAnswer(session, session.client.GET('/v1/public-ips/{id}', { params: { path: { id } } }))
}

function patch(session: Session, id: string, body: Schemas['PublicIpPatch'], header: IfMatch) {
  return call(session, session.client.PATCH('/v1/public-ips/{id}', { params: { path: { id }, header }, body }))
}
