import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import type { CliIo } from './io.ts'
import { addListCommand, addShowCommand, type Columns } from './resource-commands.ts'
import { call } from './session.ts'
import { formatMemory, renderFields } from './table.ts'

type InstanceType = Schemas['InstanceType']

const columns: Columns<InstanceType> = () => [
  { header: 'ID', cell: (type) => type.id },
  { header: 'VCPUS', cell: (type) => String(type.spec.vcpus) },
  { header: 'MEMORY', cell: (type) => formatMemory(type.spec.memory_mb) },
  { header: 'DISK', cell: (type) => `${type.spec.disk_gb} GiB` },
  { header: 'BANDWIDTH', cell: (type) => `${type.spec.bandwidth_mbps} Mbit/s` },
]

/** `berth type`: the sizes an instance can have. */
export function addInstanceTypeCommands(program: Command, io: CliIo): void {
  const group = program
    .command('type')
    .description('sizes that instances can have')
    .addHelpText('after', '\nExamples:\n  berth type list\n  berth type show cx31')
  addListCommand(group, io, {
    nouns: 'instance types',
    columns,
    list: (session) => call(session, session.client.GET('/v1/instance-types')),
  })
  addShowCommand(group, io, {
    noun: 'an instance type',
    get: (session, id) => call(session, session.client.GET('/v1/instance-types/{id}', { params: { path: { id } } })),
    render: (type) => renderFields(columns(0).map(({ header, cell }) => [header.toLowerCase(), cell(type)] as const)),
  })
}
