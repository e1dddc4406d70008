import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import type { CliIo } from './io.ts'
import { type MetadataFlags, metadataOf, withIdAndMetadata } from './metadata.ts'
import { type OutputFlags, print, withOutput } from './output.ts'
import { addDeleteCommand, addListCommand, addShowCommand, type Columns } from './resource-commands.ts'
import { call, openSession } from './session.ts'
import { formatAge, formatLabels, renderFields, renderTable } from './table.ts'

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
  const group = program
    .command('vpc')
    .description('private networks')
    .addHelpText(
      'after',
      `
Examples:
  berth vpc create --id vpc-shop --cidr 10.20.0.0/16
  berth subnet create --id subnet-shop --vpc vpc-shop --cidr 10.20.1.0/24`,
    )

  withOutput(withIdAndMetadata(group.command('create').description('create a VPC'), 'vpc'))
    .requiredOption('--cidr <cidr>', 'IPv4 network, as 10.20.0.0/16')
    .action(async (flags: MetadataFlags & OutputFlags & { cidr: string }, command: Command) => {
      const session = openSession(io, command)
      const body = { ...metadataOf(flags), spec: { cidr: flags.cidr } }
      const vpc = await call(session, session.client.POST('/v1/vpcs', { body }))
      print(io, flags, vpc, () => renderTable(columns(io.now()), [vpc]))
    })
  addListCommand(group, io, {
    nouns: 'VPCs',
    columns,
    list: (session) => call(session, session.client.GET('/v1/vpcs')),
  })
  addShowCommand(group, io, {
    noun: 'a VPC',
    get: (session, id) => call(session, session.client.GET('/v1/vpcs/{id}', { params: { path: { id } } })),
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
  })
  addDeleteCommand(group, io, {
    noun: 'a VPC',
    remove: (session, id) => call(session, session.client.DELETE('/v1/vpcs/{id}', { params: { path: { id } } })),
  })
}
