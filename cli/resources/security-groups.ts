import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import { withExamples } from '../command/help.ts'
import { type MetadataFlags, metadataOf, withIdAndMetadata } from '../command/labels.ts'
import { addListCommand, type Columns } from '../command/list.ts'
import { addDeleteCommand, addShowCommand, addUpdateCommand } from '../command/resource.ts'
import { CliError, exitCodes } from '../exit-codes.ts'
import type { CliIo } from '../io.ts'
import { type OutputFlags, print, withOutput } from '../output/output.ts'
import { formatAge, formatLabels, renderFields, renderTable } from '../output/table.ts'
import { call, callForAnswer, openSession, type Session } from '../session.ts'
import { formatPorts, formatRule, isSameRule, repeatedRule, ruleSyntax } from './rule-syntax.ts'

type SecurityGroup = Schemas['SecurityGroup']
type Rule = Schemas['SecurityGroupRule']

const columns: Columns<SecurityGroup> = (now) => [
  { header: 'ID', cell: (group) => group.id },
  { header: 'NAME', cell: (group) => group.metadata.name },
  { header: 'RULES', cell: (group) => String(group.spec.rules.length) },
  { header: 'INSTANCES', cell: (group) => String(group.status.instances) },
  { header: 'AGE', cell: (group) => formatAge(group.metadata.created_at, now) },
  { header: 'DESCRIPTION', cell: (group) => group.spec.description },
]

const ruleColumns = [
  { header: 'DIRECTION', cell: (rule: Rule) => rule.direction },
  { header: 'PROTOCOL', cell: (rule: Rule) => rule.protocol },
  { header: 'PORTS', cell: formatPorts },
  {
    header: 'REMOTE',
    cell: ({ remote }: Rule) => ('cidr' in remote ? remote.cidr : remote.security_group),
  },
  { header: 'DESCRIPTION', cell: (rule: Rule) => rule.description },
]

interface CreateFlags extends MetadataFlags, OutputFlags {
  description?: string
  allowIn?: Rule[]
  allowOut?: Rule[]
}

/** `berth security-group`: firewall rules that instances have in common. */
export function addSecurityGroupCommands(program: Command, io: CliIo): void {
  const group = withExamples(
    program.command('security-group').description('firewall rules that instances have in common'),
    [
      'berth security-group create --id sg-api --allow-in tcp:8080:sg-web --allow-out any:any',
      'berth security-group show sg-api',
      'berth security-group update sg-api --add-allow-in tcp:22:10.0.0.0/8',
    ],
  )
  addCreate(group, io)
  addListCommand(group, io, {
    nouns: 'security groups',
    columns,
    labelled: true,
    page: (session, query) => call(session, session.client.GET('/v1/security-groups', { params: { query } })),
    watch: {
      kind: 'security_group',
      get: async (session, id) => (await get(session, id)).data,
      countsOf: ['instance'],
    },
    examples: ['berth security-group list', 'berth security-group list -l team=web'],
  })
  addShowCommand(group, io, {
    noun: 'a security group',
    versioned: true,
    get,
    render: (item) => {
      const fields = renderFields([
        ['id', item.id],
        ['name', item.metadata.name],
        ['labels', formatLabels(item.metadata.labels)],
        ['created', item.metadata.created_at],
        ['description', item.spec.description],
        ['instances', String(item.status.instances)],
      ])
      return `${fields}\n${renderTable(ruleColumns, item.spec.rules)}`
    },
    examples: ['berth security-group show sg-web'],
  })
  addUpdate(group, io)
  addDeleteCommand(group, io, {
    noun: 'a security group',
    remove: (session, id) =>
      call(session, session.client.DELETE('/v1/security-groups/{id}', { params: { path: { id } } })),
    examples: ['berth security-group delete sg-api'],
  })
}

function addCreate(group: Command, io: CliIo): void {
  const command = withIdAndMetadata(group.command('create').description('create a security group'), 'sg')
    .option('--description <text>', 'what it is for')
    .option('--allow-in <rule>', 'let in what a rule says; may be repeated', repeatedRule('ingress'))
    .option('--allow-out <rule>', 'let out what a rule says; may be repeated', repeatedRule('egress'))
  withOutput(command).action(async (flags: CreateFlags, self: Command) => {
    const session = openSession(io, self)
    const rules = [...(flags.allowIn ?? []), ...(flags.allowOut ?? [])]
    const spec = { ...(flags.description === undefined ? {} : { description: flags.description }), rules }
    const body = { ...metadataOf(flags), spec }
    const created = await call(session, session.client.POST('/v1/security-groups', { body }))
    print(io, flags, created, () => renderTable(columns(io.now()), [created]))
  })
  withExamples(
    command,
    [
      'berth security-group create --id sg-api --allow-in tcp:8080:sg-web --allow-out any:any',
      'berth security-group create --id sg-dns --allow-in "udp:53:10.0.0.0/8 resolvers"',
    ],
    ruleSyntax,
  )
}

interface RuleFlags {
  description?: string
  allowIn?: Rule[]
  allowOut?: Rule[]
  addAllowIn?: Rule[]
  addAllowOut?: Rule[]
  removeAllowIn?: Rule[]
  removeAllowOut?: Rule[]
  clearRules?: true
}

function addUpdate(group: Command, io: CliIo): void {
  const [ingress, egress] = [repeatedRule('ingress'), repeatedRule('egress')]
  addUpdateCommand(group, io, {
    noun: 'a security group',
    columns,
    get,
    patch: (session, id, body, header) =>
      call(session, session.client.PATCH('/v1/security-groups/{id}', { params: { path: { id }, header }, body })),
    options: (command) =>
      command
        .option('--description <text>', 'what it is for')
        .option('--allow-in <rule>', 'rules in place of all that are there; may be repeated', ingress)
        .option('--allow-out <rule>', 'the same for the way out', egress)
        .option('--clear-rules', 'remove all rules')
        .option('--add-allow-in <rule>', 'one more rule; may be repeated', ingress)
        .option('--add-allow-out <rule>', 'the same for the way out', egress)
        .option('--remove-allow-in <rule>', 'one rule less; may be repeated', ingress)
        .option('--remove-allow-out <rule>', 'the same for the way out', egress),
    spec: changedSpec,
    examples: [
      'berth security-group update sg-api --add-allow-in tcp:22:10.0.0.0/8',
      'berth security-group update sg-api --remove-allow-in tcp:22:10.0.0.0/8',
      'berth security-group update sg-api --allow-in tcp:443:any --allow-out any:any',
    ],
  })
}

async function changedSpec(flags: RuleFlags, present: () => Promise<SecurityGroup>) {
  const rules = await changedRules(flags, present)
  const spec = {
    ...(flags.description === undefined ? {} : { description: flags.description }),
    ...(rules === null ? {} : { rules }),
  }
  return Object.keys(spec).length === 0 ? null : spec
}

async function changedRules(flags: RuleFlags, present: () => Promise<SecurityGroup>): Promise<Rule[] | null> {
  const whole = [...(flags.allowIn ?? []), ...(flags.allowOut ?? [])]
  const added = [...(flags.addAllowIn ?? []), ...(flags.addAllowOut ?? [])]
  const removed = [...(flags.removeAllowIn ?? []), ...(flags.removeAllowOut ?? [])]
  const ways = [whole.length > 0, flags.clearRules === true, added.length + removed.length > 0].filter((way) => way)
  if (ways.length > 1) {
    throw new CliError(exitCodes.usage, 'rules are replaced, cleared, or added and removed: only one of these at once')
  }
  if (ways.length === 0) return null
  if (whole.length > 0 || flags.clearRules) return whole
  const { rules } = (await present()).spec
  const missing = removed.find((rule) => !rules.some((other) => isSameRule(rule, other)))
  if (missing !== undefined) {
    const way = missing.direction === 'ingress' ? 'in' : 'out'
    throw new CliError(exitCodes.notFound, `there is no rule ${formatRule(missing)} for the way ${way}`)
  }
  const kept = rules.filter((rule) => !removed.some((other) => isSameRule(rule, other)))
  return [...kept, ...added.filter((rule) => !kept.some((other) => isSameRule(rule, other)))]
}

function get(session: Session, id: string) {
  return callForAnswer(session, session.client.GET('/v1/security-groups/{id}', { params: { path: { id } } }))
}
