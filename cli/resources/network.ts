import type { Schemas } from '@berth/sdk/client.ts'
import { type Command, InvalidArgumentError } from 'commander'
import { instanceReference } from '../command/arguments.ts'
import { withExamples } from '../command/help.ts'
import { CliError, exitCodes } from '../exit-codes.ts'
import type { CliIo } from '../io.ts'
import { type OutputFlags, print, withOutput } from '../output/output.ts'
import { renderTable } from '../output/table.ts'
import { call, openSession, type Session } from '../session.ts'
import { resolveInstanceId } from './instance-lookup.ts'
import { formatRule } from './rule-syntax.ts'

type Check = Schemas['NetworkCheck']
type Traffic = Pick<Schemas['NetworkQuestion'], 'protocol' | 'port'>

const ipv4 = /^\d{1,3}(?:\.\d{1,3}){3}$/

const columns = [
  { header: 'AT', cell: (check: Check) => check.at },
  { header: 'PASSES', cell: (check: Check) => (check.passes ? 'yes' : 'no') },
  { header: 'WHY', cell: (check: Check) => check.message },
]

/** `berth network`: what passes between instances. */
export function addNetworkCommands(program: Command, io: CliIo): void {
  const group = withExamples(program.command('network').description('what passes between instances'), [
    'berth network explain web-1 db-1 tcp/5432',
  ])
  const command = group
    .command('explain')
    .description('whether packets arrive, and which rule lets them or is missing; exit code 1 if they do not')
    .argument('<from>', 'name or id of an instance, or an IPv4 address', endReference)
    .argument('<to>', 'name or id of an instance, or an IPv4 address', endReference)
    .argument('<traffic>', 'tcp/PORT, udp/PORT or icmp', parseTraffic)
  withOutput(command).action(
    async (from: string, to: string, traffic: Traffic, flags: OutputFlags, self: Command): Promise<void> => {
      const session = openSession(io, self)
      const body = { from: await resolveEnd(session, from), to: await resolveEnd(session, to), ...traffic }
      const explanation = await call(session, session.client.POST('/v1/network/explain', { body }))
      print(io, flags, explanation, () => render(explanation))
      if (!explanation.allowed) throw new CliError(exitCodes.failed, 'such packets do not arrive')
    },
  )
  withExamples(
    command,
    [
      'berth network explain web-1 db-1 tcp/5432',
      'berth network explain 198.51.100.9 web-1 tcp/443',
      'berth network explain web-1 9.9.9.9 icmp',
    ],
    `It answers from the rules as they are stored, for packets that open a
connection; answers to them pass with it.`,
  )
}

function render({ from, to, checks, notes }: Schemas['NetworkExplanation']): string {
  const missing = checks.flatMap(({ missing_rule: rule }) => (rule === null ? [] : [rule]))
  const name = (end: typeof from) => (end.instance_id === '' ? end.address : `${end.instance_id} (${end.address})`)
  return [
    `${name(from)} -> ${name(to)}\n\n`,
    renderTable(columns, checks),
    ...missing.map((rule) => {
      const option = rule.direction === 'ingress' ? '--allow-in' : '--allow-out'
      return `\nA rule such as ${option} ${formatRule(rule)} is missing.\n`
    }),
    ...notes.map((note) => `\nNote: ${note}\n`),
  ].join('')
}

async function resolveEnd(session: Session, reference: string): Promise<string> {
  return ipv4.test(reference) ? reference : resolveInstanceId(session, reference)
}

function endReference(text: string): string {
  return ipv4.test(text) ? text : instanceReference(text)
}

/** `tcp/443`, `udp/53` or `icmp`. Throws InvalidArgumentError. */
export function parseTraffic(text: string): Traffic {
  if (text === 'icmp') return { protocol: 'icmp' }
  const [, protocol, portText] = /^(tcp|udp)\/(\d{1,5})$/.exec(text) ?? []
  const port = Number(portText)
  if ((protocol !== 'tcp' && protocol !== 'udp') || port < 1 || port > 65_535) {
    throw new InvalidArgumentError('It must be tcp/PORT or udp/PORT with a port from 1 to 65535, or icmp.')
  }
  return { protocol, port }
}
