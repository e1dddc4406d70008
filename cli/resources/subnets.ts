import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import { resourceId } from '../command/arguments.ts'
import { withExamples } from '../command/help.ts'
import { type MetadataFlags, metadataOf, withIdAndMetadata } from '../command/labels.ts'
import { addListCommand, type Columns } from '../command/list.ts'
import { addDeleteCommand, addShowCommand, addUpdateCommand } from '../command/resource.ts'
import type { CliIo } from '../io.ts'
import { type OutputFlags, print, withOutput } from '../output/output.ts'
import { formatAge, formatLabels, renderFields, renderTable } from '../output/table.ts'
import { call, callForAnswer, openSession, type Session } from '../session.ts'

type Subnet = Schemas['Subnet']

const columns: Columns<Subnet> = (now) => [
  { header: 'ID', cell: (subnet) => subnet.id },
  { header: 'NAME', cell: (subnet) => subnet.metadata.name },
  { header: 'VPC', cell: (subnet) => subnet.spec.vpc_id },
  { header: 'CIDR', cell: (subnet) => subnet.spec.cidr },
  { header: 'FREE', cell: (subnet) => String(subnet.status.available_addresses) },
  { header: 'AGE', cell: (subnet) => formatAge(subnet.metadata.created_at, now) },
]

interface AssignFlags {
  autoAssignPublicIp?: boolean
}

function assignmentOf({ autoAssignPublicIp }: AssignFlags) {
  return autoAssignPublicIp === undefined ? {} : { auto_assign_public_ip: autoAssignPublicIp }
}

/** `berth subnet`: the parts of a VPC that instances get their addresses from. */
export function addSubnetCommands(program: Command, io: CliIo): void {
  const group = withExamples(
    program.command('subnet').description('parts of a VPC that instances get addresses from'),
    ['berth subnet create --id subnet-shop --vpc vpc-shop --cidr 10.20.1.0/24', 'berth subnet list'],
  )

  const create = withIdAndMetadata(group.command('create').description('create a subnet'), 'subnet')
    .requiredOption('--vpc <id>', 'VPC it is part of', resourceId)
    .requiredOption('--cidr <cidr>', "IPv4 network within the VPC's, as 10.20.1.0/24")
    .option('--auto-assign-public-ip', 'give each instance that is created there a public address')
  withOutput(create).action(
    async (flags: MetadataFlags & OutputFlags & AssignFlags & { vpc: string; cidr: string }, command: Command) => {
      const session = openSession(io, command)
      const body = { ...metadataOf(flags), spec: { vpc_id: flags.vpc, cidr: flags.cidr, ...assignmentOf(flags) } }
      const subnet = await call(session, session.client.POST('/v1/subnets', { body }))
      print(io, flags, subnet, () => renderTable(columns(io.now()), [subnet]))
    },
  )
  withExamples(create, [
    'berth subnet create --id subnet-shop --vpc vpc-shop --cidr 10.20.1.0/24',
    'berth subnet create --id subnet-web --vpc vpc-shop --cidr 10.20.2.0/24 --auto-assign-public-ip',
  ])

  addListCommand<Subnet, { vpc_id: string }, { vpc?: string }>(group, io, {
    nouns: 'subnets',
    columns,
    labelled: true,
    options: (command) => command.option('--vpc <id>', 'only those of a VPC', resourceId),
    filter: async (_session, { vpc }) => (vpc === undefined ? {} : { vpc_id: vpc }),
    page: (session, query) => call(session, session.client.GET('/v1/subnets', { params: { query } })),
    watch: {
      kind: 'subnet',
      get: async (session, id) => (await get(session, id)).data,
      matches: (subnet, { vpc_id: vpc }) => vpc === undefined || subnet.spec.vpc_id === vpc,
      countsOf: ['instance'],
    },
    examples: ['berth subnet list', 'berth subnet list --vpc vpc-shop'],
  })
  addShowCommand(group, io, {
    noun: 'a subnet',
    versioned: true,
    get,
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
        ['public addresses', subnet.spec.auto_assign_public_ip ? 'assigned to new instances' : 'on request'],
      ]),
    examples: ['berth subnet show subnet-shop'],
  })
  addUpdateCommand<Subnet, { auto_assign_public_ip?: boolean }, AssignFlags>(group, io, {
    noun: 'a subnet',
    columns,
    get,
    patch: (session, id, body, header) =>
      call(session, session.client.PATCH('/v1/subnets/{id}', { params: { path: { id }, header }, body })),
    options: (command) =>
      command
        .option('--auto-assign-public-ip', 'give each instance that is created from now on a public address')
        .option('--no-auto-assign-public-ip', 'do not'),
    spec: async (flags) => (flags.autoAssignPublicIp === undefined ? null : assignmentOf(flags)),
    examples: [
      'berth subnet update subnet-shop --name shop-a --label zone=a',
      'berth subnet update subnet-shop --no-auto-assign-public-ip',
    ],
  })
  addDeleteCommand(group, io, {
    noun: 'a subnet',
    remove: (session, id) => call(session, session.client.DELETE('/v1/subnets/{id}', { params: { path: { id } } })),
    examples: ['berth subnet delete subnet-shop'],
  })
}

function get(session: Session, id: string) {
  return callForAnswer(session, session.client.GET('/v1/subnets/{id}', { params: { path: { id } } }))
}
