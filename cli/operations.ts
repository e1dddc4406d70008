import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import { instanceReference, resourceId, timeoutSeconds } from './arguments.ts'
import { Patience, waitForOperation } from './follow.ts'
import { resolveInstanceId } from './instance-lookup.ts'
import type { CliIo } from './io.ts'
import { type OutputFlags, print, withOutput } from './output.ts'
import { addShowCommand, type Columns } from './resource-commands.ts'
import { call, openSession } from './session.ts'
import { formatAge, formatDuration, renderFields, renderTable } from './table.ts'

type Operation = Schemas['Operation']
type Step = Schemas['OperationStep']

const columns: Columns<Operation> = (now) => [
  { header: 'ID', cell: (operation) => operation.id },
  { header: 'TYPE', cell: (operation) => operation.type },
  { header: 'RESOURCE', cell: (operation) => operation.resource_id },
  { header: 'STATUS', cell: (operation) => operation.status },
  { header: 'AGE', cell: (operation) => formatAge(operation.created_at, now) },
  { header: 'ERROR', cell: (operation) => operation.error?.code ?? '' },
]

const stepColumns = [
  { header: 'STEP', cell: (step: Step) => step.name },
  { header: 'STATUS', cell: (step: Step) => step.status },
  { header: 'ATTEMPT', cell: (step: Step) => (step.attempt === 0 ? '' : String(step.attempt)) },
  { header: 'TOOK', cell: (step: Step) => formatDuration(step.started_at, step.finished_at) },
  { header: 'ERROR', cell: (step: Step) => (step.error === null ? '' : `${step.error.code}: ${step.error.message}`) },
]

/** `berth operation`: what was asked for and how it went. */
export function addOperationCommands(program: Command, io: CliIo): void {
  const group = program
    .command('operation')
    .alias('op')
    .description('what was asked for and how it went')
    .addHelpText(
      'after',
      `
Examples:
  berth operation list --instance web-1
  berth operation wait "$(berth instance stop web-1 --no-wait)"`,
    )

  withOutput(group.command('list').alias('ls').description('list operations, newest first'))
    .option('--instance <name|id>', 'only those of an instance; by its id also of one that is gone', instanceReference)
    .action(async (flags: OutputFlags & { instance?: string }, command: Command) => {
      const session = openSession(io, command)
      const query =
        flags.instance === undefined ? {} : { resource_id: await resolveInstanceId(session, flags.instance) }
      const list = await call(session, session.client.GET('/v1/operations', { params: { query } }))
      print(io, flags, list, () => renderTable(columns(io.now()), list.items))
    })

  addShowCommand(group, io, {
    noun: 'an operation',
    get: (session, id) => call(session, session.client.GET('/v1/operations/{id}', { params: { path: { id } } })),
    render: renderOperation,
  })

  withOutput(group.command('wait').description('wait until an operation has ended; exit code 1 unless it succeeded'))
    .argument('<id>', 'id of an operation', resourceId)
    .option('--timeout <seconds>', 'give up waiting after this time', timeoutSeconds, 600)
    .action(async (id: string, flags: OutputFlags & { timeout: number }, command: Command) => {
      const session = openSession(io, command)
      const operation = await waitForOperation(session, id, new Patience(session, flags.timeout))
      print(io, flags, operation, () => renderTable(columns(io.now()), [operation]))
    })
}

function renderOperation(operation: Operation): string {
  const { error } = operation
  const fields = renderFields([
    ['id', operation.id],
    ['type', operation.type],
    ['resource', operation.resource_id],
    ['status', operation.status],
    ['created', operation.created_at],
    ['finished', operation.finished_at ?? ''],
    ...(error === null
      ? []
      : ([
          ['error', `${error.code}: ${error.message}`],
          ['hint', error.hint],
          ['retryable', error.retryable ? 'yes' : 'no'],
        ] as const)),
  ])
  return `${fields}\n${renderTable(stepColumns, operation.steps)}`
}
