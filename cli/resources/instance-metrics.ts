import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import { withExamples } from '../command/help.ts'
import type { CliIo } from '../io.ts'
import { type OutputFlags, print, withOutput } from '../output/output.ts'
import { formatAge, formatMib, renderFields } from '../output/table.ts'
import { call, openSession } from '../session.ts'
import { onInstance, resolveInstanceId } from './instance-lookup.ts'

/** `berth instance metrics`: what an instance uses. */
export function addMetrics(group: Command, io: CliIo): void {
  const command = onInstance(group, 'metrics', 'show what an instance uses, as its host last counted it')
  withOutput(command).action(async (reference: string, flags: OutputFlags, self: Command) => {
    const session = openSession(io, self)
    const params = { path: { id: await resolveInstanceId(session, reference) } }
    const metrics = await call(session, session.client.GET('/v1/instances/{id}/metrics', { params }))
    print(io, flags, metrics, () => render(metrics, io.now()))
  })
  withExamples(
    command,
    ['berth instance metrics web-1', 'berth instance metrics web-1 -o json'],
    `Hosts look every 10 seconds. Totals count from the start of the machine,
those of the network from the making of its card.`,
  )
}

function render({ instance_id: id, at, cpu, memory, disk, network }: Schemas['InstanceMetrics'], now: number): string {
  if (at === '') return `${id} did not run when its host last looked\n`
  return renderFields([
    ['instance', id],
    ['counted', `${formatAge(at, now)} ago`],
    ['cpu', `${cpu.seconds_total.toFixed(1)} s`],
    ['memory', mib(memory.resident_bytes)],
    ['disk', `${mib(disk.allocated_bytes)} on the host`],
    ['read', mib(disk.read_bytes_total)],
    ['written', mib(disk.written_bytes_total)],
    ['received', `${mib(network.received_bytes_total)} in ${network.received_packets_total} packets`],
    ['sent', `${mib(network.sent_bytes_total)} in ${network.sent_packets_total} packets`],
  ])
}

function mib(bytes: number): string {
  return bytes === 0 ? '0 MiB' : formatMib(bytes)
}
