import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import { withExamples } from '../command/help.ts'
import { type MetadataFlags, metadataOf, withIdAndMetadata } from '../command/labels.ts'
import { addListCommand, type Columns } from '../command/list.ts'
import { addDeleteCommand, addShowCommand, addUpdateCommand } from '../command/resource.ts'
import type { CliIo } from '../io.ts'
import { type OutputFlags, print, withOutput } from '../output/output.ts'
import { formatAge, formatLabels, renderFields, renderTable } from '../output/table.ts'
import { call, callForAnswer, openSession, type Session } from '../session.ts'

type Vpc = Schemas['Vpc']

const columns: Columns<Vpc> = (now) => [
  { header: 'ID', cell: (vpc) => vpc.id },
  { header: 'NAME', cell: (vpc) => vpc.metadata.name },
  { header: 'CIDR', cell: (vpc) => vpc.spec.cidr },
  { header: 'SUBNETS', cell: (vpc) => String(vpc.status.subnets) },
  { header: 'INSTANCES', cell: (vpc) => String(vpc.status.instances) },
  { header: 'AGE', cell: (vpc) => formatAge(vpc.metadata.created_at, now) },
]

/** `berth vpc`: private networks. */
export function addVpcCommands(program: Command, io: CliIo): void {
  const group = withExamples(program.command('vpc').description('private networks'), [
    'berth vpc create --id vpc-shop --cidr 10.20.0.0/16',
    'berth subnet create --id subnet-shop --vpc vpc-shop --cidr 10.20.1.0/24',
  ])

  const create = withIdAndMetadata(group.command('create').description('create a VPC'), 'vpc').requiredOption(
    '--cidr <cidr>',
    'IPv4 network, as 10.20.0.0/16',
  )
  withOutput(create).action(async (flags: MetadataFlags & OutputFlags & { cidr: string }, command: Command) => {
    const session = openSession(io, command)
    const body = { ...metadataOf(flags), spec: { cidr: flags.cidr } }
    const vpc = await call(session, session.client.POST('/v1/vpcs', { body }))
    print(io, flags, vpc, () => renderTable(columns(io.now()), [vpc]))
  })
  withExamples(create, ['berth vpc create --id vpc-shop --name shop --cidr 10.20.0.0/16 --label env=prod'])

  addListCommand(group, io, {
    nouns: 'VPCs',
    columns,
    labelled: true,
    page: (session, query) => call(session, session.client.GET('/v1/vpcs', { params: { query } })),
    watch: { kind: 'vpc', get: async (session, id) => (await get(session, id)).data, countsOf: ['subnet', 'instance'] },
    examples: ['berth vpc list', 'berth vpc list -l env=prod', 'berth vpc list --watch'],
  })
  addShowCommand(group, io, {
    noun: 'a VPC',
    versioned: true,
    get,
    render: (vpc) =>
      renderFields([
        ['id', vpc.id],
        ['name', vpc.metadata.name],
        ['labels', formatLabels(vpc.metadata.labels)],
        ['created', vpc.metadata.created_at],
        ['cidr', vpc.spec.cidr],
        ['subnets', String(vpc.status.subnets)],
        ['instances', String(vpc.status.instances)],
      ]),
    examples: ['berth vpc show vpc-shop', 'berth vpc show vpc-shop -o json'],
  })
  addUpdateCommand(group, io, {
    noun: 'a VPC',
    columns,
    get,
    patch: (session, id, body, header) =>
      call(session, session.client.PATCH('/v1/vpcs/{id}', { params: { path: { id }, header }, body })),
    examples: ['berth vpc update vpc-shop --name web-shop --label env=test --remove-label team'],
  })
  addDeleteCommand(group, io, {
    noun: 'a VPC',
    remove: (session, id) => call(session, session.client.DELETE('/v1/vpcs/{id}', { params: { path: { id } } })),
    examples: ['berth vpc delete vpc-shop'],
  })
}

function get(session: Session, id: string) {
  return callForAnswer(session, session.client.GET('/v1/vpcs/{id}', { params: { path: { id } } }))
}
