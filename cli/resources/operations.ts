import { operationStatuses, operationTypes } from '@berth/contract/operation-kinds.ts'
import type { Schemas } from '@berth/sdk/client.ts'
import { type Command, Option } from 'commander'
import { instanceReference, resourceId, timeoutSeconds } from '../command/arguments.ts'
import { withExamples } from '../command/help.ts'
import { addListCommand, type Columns } from '../command/list.ts'
import { addShowCommand } from '../command/resource.ts'
import type { CliIo } from '../io.ts'
import { Patience, waitForOperation } from '../live/follow.ts'
import { type OutputFlags, print, withOutput } from '../output/output.ts'
import { formatAge, formatDuration, renderFields, renderTable } from '../output/table.ts'
import { call, callForAnswer, openSession, type Session } from '../session.ts'
import { resolveInstanceId } from './instance-lookup.ts'

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

interface OperationFilter {
  resource_id: string
  type: Operation['type']
  status: Operation['status']
}

interface FilterFlags {
  instance?: string
  type?: Operation['type']
  status?: Operation['status']
}

/** `berth operation`: what was asked for and how it went. */
export function addOperationCommands(program: Command, io: CliIo): void {
  const group = withExamples(
    program.command('operation').alias('op').description('what was asked for and how it went'),
    ['berth operation list --instance web-1', 'berth operation wait "$(berth instance stop web-1 --no-wait)"'],
  )

  addListCommand<Operation, OperationFilter, FilterFlags>(group, io, {
    nouns: 'operations, newest first',
    columns,
    labelled: false,
    options: (command) =>
      command
        .option(
          '--instance <name|id>',
          'only those of an instance; by its id also of one that is gone',
          instanceReference,
        )
        .addOption(new Option('--type <type>', 'only those of a type').choices(operationTypes))
        .addOption(new Option('--status <status>', 'only those in a status').choices(operationStatuses)),
    filter: async (session, { instance, type, status }: FilterFlags) => ({
      ...(instance === undefined ? {} : { resource_id: await resolveInstanceId(session, instance) }),
      ...(type === undefined ? {} : { type }),
      ...(status === undefined ? {} : { status }),
    }),
    page: (session, query) => call(session, session.client.GET('/v1/operations', { params: { query } })),
    watch: {
      kind: 'operation',
      get: async (session, id) => (await get(session, id)).data,
      matches: (operation, { resource_id: resource, type, status }) =>
        (resource === undefined || operation.resource_id === resource) &&
        (type === undefined || operation.type === type) &&
        (status === undefined || operation.status === status),
      newestFirst: true,
    },
    examples: [
      'berth operation list --instance web-1',
      'berth operation list --type instance.create --status failed',
      'berth operation list --status running --watch',
    ],
  })

  addShowCommand(group, io, {
    noun: 'an operation',
    versioned: false,
    get,
    render: renderOperation,
    examples: ['berth operation show op-…', 'berth operation show op-… -o json'],
  })

  const wait = group
    .command('wait')
    .description('wait until an operation has ended; exit code 1 unless it succeeded')
    .argument('<id>', 'id of an operation', resourceId)
    .option('--timeout <seconds>', 'give up waiting after this time', timeoutSeconds, 600)
  withOutput(wait).action(async (id: string, flags: OutputFlags & { timeout: number }, command: Command) => {
    const session = openSession(io, command)
    const operation = await waitForOperation(session, id, new Patience(session, flags.timeout))
    print(io, flags, operation, () => renderTable(columns(io.now()), [operation]))
  })
  withExamples(wait, ['berth operation wait op-…', 'berth operation wait "$(berth instance stop web-1 --no-wait)"'])
}

function get(session: Session, id: string) {
  return callForAnswer(session, session.client.GET('/v1/operations/{id}', { params: { path: { id } } }))
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
