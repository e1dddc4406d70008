import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import { withExamples } from '../command/help.ts'
import { addListCommand, type Columns } from '../command/list.ts'
import { addShowCommand } from '../command/resource.ts'
import type { CliIo } from '../io.ts'
import { formatMemory, renderFields } from '../output/table.ts'
import { call, callForAnswer } from '../session.ts'

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
  const group = withExamples(program.command('type').description('sizes that instances can have'), [
    'berth type list',
    'berth type show cx31',
  ])
  addListCommand(group, io, {
    nouns: 'instance types',
    columns,
    labelled: false,
    page: (session, query) => call(session, session.client.GET('/v1/instance-types', { params: { query } })),
    examples: ['berth type list', 'berth type list -o json'],
  })
  addShowCommand(group, io, {
    noun: 'an instance type',
    versioned: false,
    get: (session, id) =>
      callForAnswer(session, session.client.GET('/v1/instance-types/{id}', { params: { path: { id } } })),
    render: (type) => renderFields(columns(0).map(({ header, cell }) => [header.toLowerCase(), cell(type)] as const)),
    examples: ['berth type show cx31'],
  })
}
