import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import { resourceId } from './arguments.ts'
import type { CliIo } from './io.ts'
import { type MetadataFlags, metadataOf, withIdAndMetadata } from './metadata.ts'
import { type OutputFlags, print, withOutput } from './output.ts'
import { addDeleteCommand, addListCommand, addShowCommand, type Columns } from './resource-commands.ts'
import { call, openSession } from './session.ts'
import { formatAge, formatLabels, renderFields, renderTable } from './table.ts'

type Subnet = Schemas['Subnet']

const columns: Columns<Subnet> = (now) => [
  { header: 'ID', cell: (subnet) => subnet.id },
  { header: 'NAME', cell: (subnet) => subnet.metadata.name },
  { header: 'VPC', cell: (subnet) => subnet.spec.vpc_id },
  { header: 'CIDR', cell: (subnet) => subnet.spec.cidr },
  { header: 'FREE', cell: (subnet) => String(subnet.status.available_addresses) },
  { header: 'AGE', cell: (subnet) => formatAge(subnet.metadata.created_at, now) },
]

/** `berth subnet`: the parts of a VPC that instances get their addresses from. */
export function addSubnetCommands(program: Command, io: CliIo): void {
  const group = program
    .command('subnet')
    .description('parts of a VPC that instances get addresses from')
    .addHelpText(
      'after',
      `
Examples:
  berth subnet create --id subnet-shop --vpc vpc-shop --cidr 10.20.1.0/24
  berth subnet list`,
    )

  withOutput(withIdAndMetadata(group.command('create').description('create a subnet'), 'subnet'))
    .requiredOption('--vpc <id>', 'VPC it is part of', resourceId)
    .requiredOption('--cidr <cidr>', "IPv4 network within the VPC's, as 10.20.1.0/24")
    .action(async (flags: MetadataFlags & OutputFlags & { vpc: string; cidr: string }, command: Command) => {
      const session = openSession(io, command)
      const body = { ...metadataOf(flags), spec: { vpc_id: flags.vpc, cidr: flags.cidr } }
      const subnet = await call(session, session.client.POST('/v1/subnets', { body }))
      print(io, flags, subnet, () => renderTable(columns(io.now()), [subnet]))
    })
  addListCommand(group, io, {
    nouns: 'subnets',
    columns,
    list: (session) => call(session, session.client.GET('/v1/subnets')),
  })
  addShowCommand(group, io, {
    noun: 'a subnet',
    get: (session, id) => call(session, session.client.GET('/v1/subnets/{id}', { params: { path: { id } } })),
    render: (subnet) =>
      renderFields([
        ['id', subnet.id],
        ['name', subnet.metadata.name],
        ['labels', formatLabels(subnet.metadata.labels)],
        ['created', subnet.metadata.created_at],
        ['vpc', subnet.spec.vpc_id],
        ['cidr', subnet.spec.cidr],
        ['gateway', subnet.status.gateway],
        ['free addresses', String(subnet.status.available_addresses)],
      ]),
  })
  addDeleteCommand(group, io, {
    noun: 'a subnet',
    remove: (session, id) => call(session, session.client.DELETE('/v1/subnets/{id}', { params: { path: { id } } })),
  })
}
