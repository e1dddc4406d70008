import { generatedIdPattern } from '@berth/contract/ids.ts'
import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import { nameOrId } from '../command/arguments.ts'
import { withExamples } from '../command/help.ts'
import { addListCommand, type Columns } from '../command/list.ts'
import { addShowCommand, addUpdateCommand, type IfMatch, type Naming } from '../command/resource.ts'
import { CliError, exitCodes } from '../exit-codes.ts'
import type { CliIo } from '../io.ts'
import { type OutputFlags, print, withOutput } from '../output/output.ts'
import { formatAge, formatLabels, formatMemory, renderFields, renderTable } from '../output/table.ts'
import { call, callForAnswer, openSession, type Session } from '../session.ts'

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
  const group = withExamples(
    program.command('host').description('machines that instances run on'),
    ['berth host list', 'berth host cordon rack-3'],
    `A host is named by its name or its id. vCPUs, memory and disk are shown as
reserved/offered.`,
  )
  addListCommand(group, io, {
    nouns: 'hosts',
    columns,
    labelled: true,
    page: (session, query) => call(session, session.client.GET('/v1/hosts', { params: { query } })),
    watch: { kind: 'host', get: async (session, id) => (await get(session, id)).data, countsOf: ['instance'] },
    examples: ['berth host list', 'berth host list -l rack=3', 'berth host list --watch'],
  })
  addShowCommand(group, io, {
    ...naming,
    versioned: true,
    get,
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
    examples: ['berth host show rack-3'],
  })
  addUpdateCommand(group, io, {
    ...naming,
    columns,
    get,
    patch,
    examples: ['berth host update rack-3 --label rack=3', 'berth host update host-… --name rack-3'],
  })
  addCordon(group, io, { name: 'cordon', schedulable: false, description: 'place nothing new on a host' })
  addCordon(group, io, { name: 'uncordon', schedulable: true, description: 'place instances on a host again' })
}

function addCordon(
  group: Command,
  io: CliIo,
  { name, schedulable, description }: { name: string; schedulable: boolean; description: string },
): void {
  const command = group.command(name).description(description).argument('<name|id>', 'name or id of a host', nameOrId)
  withOutput(command).action(async (reference: string, flags: OutputFlags, self: Command) => {
    const session = openSession(io, self)
    const host = await patch(session, await resolveHostId(session, reference), { spec: { schedulable } }, {})
    print(io, flags, host, () => renderTable(columns(io.now()), [host]))
  })
  const more = schedulable ? '' : 'What runs there runs on. Instances that find no other host wait.'
  withExamples(command, [`berth host ${name} rack-3`], more)
}

const naming: Naming = { noun: 'a host', argument: '<name|id>', parse: nameOrId, resolve: resolveHostId }

/** The id of the host with a name or an id. Throws CliError: not found, or conflict when several have the name. */
export async function resolveHostId(session: Session, reference: string): Promise<string> {
  if (new RegExp(generatedIdPattern('host')).test(reference)) return reference
  const query = { name: reference }
  const { items } = await call(session, session.client.GET('/v1/hosts', { params: { query } }))
  const [first, ...others] = items
  if (first === undefined) throw new CliError(exitCodes.notFound, `there is no host named ${reference}`)
  if (others.length === 0) return first.id
  throw new CliError(exitCodes.conflict, `${items.length} hosts are named ${reference}; name one by its id:`, {
    details: items.map(({ id, status }) => `${id}  ${status.state}`),
  })
}

function get(session: Session, id: string) {
  return callForAnswer(session, session.client.GET('/v1/hosts/{id}', { params: { path: { id } } }))
}

function patch(session: Session, id: string, body: Schemas['HostPatch'], header: IfMatch): Promise<Host> {
  return call(session, session.client.PATCH('/v1/hosts/{id}', { params: { path: { id }, header }, body }))
}

function hypervisorOf({ status }: Host): string {
  return status.accelerator === 'none' ? status.hypervisor : `${status.hypervisor} ${status.accelerator}`.trim()
}
