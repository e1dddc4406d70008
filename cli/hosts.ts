import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import type { CliIo } from './io.ts'
import { addListCommand, addShowCommand, type Columns } from './resource-commands.ts'
import { call } from './session.ts'
import { formatAge, formatLabels, formatMemory, renderFields } from './table.ts'

type Host = Schemas['Host']

const columns: Columns<Host> = (now) => [
  { header: 'ID', cell: (host) => host.id },
  { header: 'STATE', cell: (host) => host.status.state },
  { header: 'SCHEDULABLE', cell: (host) => (host.spec.schedulable ? 'yes' : 'no') },
  { header: 'HYPERVISOR', cell: hypervisorOf },
  { header: 'VCPUS', cell: ({ status }) => `${status.allocated.vcpus}/${status.capacity.vcpus}` },
  { header: 'MEMORY MIB', cell: ({ status }) => `${status.allocated.memory_mb}/${status.capacity.memory_mb}` },
  { header: 'DISK GIB', cell: ({ status }) => `${status.allocated.disk_gb}/${status.capacity.disk_gb}` },
  { header: 'SEEN', cell: (host) => formatAge(host.status.last_seen_at, now) },
]

/** `berth host`: the machines that instances run on. */
export function addHostCommands(program: Command, io: CliIo): void {
  const group = program
    .command('host')
    .description('machines that instances run on')
    .addHelpText(
      'after',
      `
Examples:
  berth host list
  berth host show host-…

vCPUs, memory and disk are shown as reserved/offered.`,
    )
  addListCommand(group, io, {
    nouns: 'hosts',
    columns,
    list: (session) => call(session, session.client.GET('/v1/hosts')),
  })
  addShowCommand(group, io, {
    noun: 'a host',
    get: (session, id) => call(session, session.client.GET('/v1/hosts/{id}', { params: { path: { id } } })),
    render: (host) => {
      const { allocated, capacity } = host.status
      return renderFields([
        ['id', host.id],
        ['name', host.metadata.name],
        ['labels', formatLabels(host.metadata.labels)],
        ['state', host.status.state],
        ['last seen', host.status.last_seen_at],
        ['schedulable', host.spec.schedulable ? 'yes' : 'no'],
        ['hypervisor', hypervisorOf(host)],
        ['why', host.status.accelerator_reason],
        ['vcpus', `${allocated.vcpus} of ${capacity.vcpus}`],
        ['memory', `${formatMemory(allocated.memory_mb)} of ${formatMemory(capacity.memory_mb)}`],
        ['disk', `${allocated.disk_gb} GiB of ${capacity.disk_gb} GiB`],
        ['agent', host.status.agent_version],
      ])
    },
  })
}

function hypervisorOf({ status }: Host): string {
  return status.accelerator === 'none' ? status.hypervisor : `${status.hypervisor} ${status.accelerator}`.trim()
}
