import type { Schemas } from '@berth/sdk/client.ts'
import type { Columns } from '../command/list.ts'
import type { CliIo } from '../io.ts'
import { type OutputFlags, print } from '../output/output.ts'
import { formatAge, formatLabels, formatMemory, formatSeconds, renderFields, renderTable } from '../output/table.ts'

type Instance = Schemas['Instance']
type Condition = Schemas['Condition']

/** What lists show of an instance; the answer to a create has no conditions yet. */
export type InstanceRow = Instance | Schemas['InstanceCreated']

/** Columns of a list of instances. */
export const instanceColumns: Columns<InstanceRow> = (now) => [
  { header: 'ID', cell: (instance) => instance.id },
  { header: 'NAME', cell: (instance) => (instance.metadata.name === instance.id ? '' : instance.metadata.name) },
  { header: 'STATE', cell: (instance) => instance.status.state },
  { header: 'READY', cell: readiness },
  { header: 'TYPE', cell: (instance) => instance.spec.type },
  { header: 'IMAGE', cell: (instance) => instance.spec.image },
  { header: 'PRIVATE IP', cell: (instance) => instance.status.private_ip },
  { header: 'PUBLIC IP', cell: (instance) => instance.status.public_ip },
  { header: 'AGE', cell: (instance) => formatAge(instance.metadata.created_at, now) },
]

/** Print one instance as a row of the list, or as the flags say. */
export function printInstance(io: CliIo, flags: OutputFlags, instance: InstanceRow): void {
  print(io, flags, instance, () => renderTable(instanceColumns(io.now()), [instance]))
}

/** All there is to know about an instance, for people. */
export function renderInstance(instance: Instance, nowMs: number): string {
  const { metadata, spec, status } = instance
  const why = [status.reason, status.message].filter((text) => text !== '').join(': ')
  const fields = renderFields([
    ['id', instance.id],
    ['name', metadata.name],
    ['labels', formatLabels(metadata.labels)],
    ['created', metadata.created_at],
    ['state', status.state],
    ...(why === '' ? [] : ([['why', why]] as const)),
    ['started', status.started_at],
    ['private ip', status.private_ip],
    ['public ip', status.public_ip],
    ['host', status.host_id],
    ...specFields(spec),
    ['restarts', String(status.restarts)],
    ['boot', bootTimes(status.boot_timeline)],
    ['operation', instance.operation_id],
  ])
  return `${fields}\n${renderTable(conditionColumns(nowMs), status.conditions)}`
}

function specFields(spec: Schemas['InstanceSpec']): [string, string][] {
  return [
    ['type', spec.type],
    ['size', `${spec.vcpus} vCPU, ${formatMemory(spec.memory_mb)}, ${spec.disk_gb} GiB disk`],
    ['image', spec.image],
    ['vpc', spec.vpc_id],
    ['subnet', spec.subnet_id],
    ['security groups', spec.security_groups.join(', ')],
    ['ssh keys', spec.ssh_key_ids.join(', ')],
    ['user data', spec.user_data === '' ? '' : `${Buffer.byteLength(spec.user_data, 'base64')} bytes`],
    ['on panic', spec.on_panic],
  ]
}

/** What a create would make, and where it would be placed now, for people. */
export function renderDryRun({ metadata, spec, status, placement }: Schemas['InstanceDryRun']): string {
  return renderFields([
    ['name', metadata.name],
    ['labels', formatLabels(metadata.labels)],
    ['host', placement.host_id || `none of ${placement.hosts}`],
    ...(placement.message === '' ? [] : ([['why', placement.message]] as const)),
    ['private ip', status.private_ip],
    ['public ip', status.public_ip],
    ...specFields(spec),
  ])
}

const conditionColumns: Columns<Condition> = (now) => [
  { header: 'CONDITION', cell: (condition) => condition.type },
  { header: 'STATUS', cell: (condition) => condition.status },
  { header: 'AGE', cell: (condition) => formatAge(condition.at, now) },
  { header: 'REASON', cell: (condition) => condition.reason },
  { header: 'MESSAGE', cell: (condition) => condition.message },
]

/** Whether the guest of the current boot has said that it is ready: yes, no (it failed), or "" while unknown. */
function readiness({ status }: InstanceRow): string {
  if (!('conditions' in status) || status.state !== 'running') return ''
  const guest = status.conditions.find(({ type }) => type === 'GuestReady')?.status
  return guest === 'true' ? 'yes' : guest === 'false' ? 'no' : ''
}

/** `kernel after 0.3 s, ready after 2.1 s`, counted from the start of the VMM. */
function bootTimes(timeline: Schemas['BootTimeline']): string {
  const startedAt = Date.parse(timeline.vmm_started_at)
  return (
    [
      ['kernel', timeline.kernel_at],
      ['ready', timeline.guest_ready_at],
    ] as const
  )
    .map(([name, at]) => ({ name, ms: Date.parse(at) - startedAt }))
    .filter(({ ms }) => !Number.isNaN(ms))
    .map(({ name, ms }) => `${name} after ${formatSeconds(ms)}`)
    .join(', ')
}
