import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import type { CliIo } from './io.ts'
import { addListCommand, addShowCommand, type Columns } from './resource-commands.ts'
import { call } from './session.ts'
import { formatAge, formatLabels, renderFields, renderTable } from './table.ts'

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
  { header: 'PORTS', cell: portsOf },
  {
    header: 'REMOTE',
    cell: ({ remote }: Rule) => ('cidr' in remote ? remote.cidr : remote.security_group),
  },
  { header: 'DESCRIPTION', cell: (rule: Rule) => rule.description },
]

/** `berth security-group`: firewall rules that instances have in common. */
export function addSecurityGroupCommands(program: Command, io: CliIo): void {
  const group = program
    .command('security-group')
    .description('firewall rules that instances have in common')
    .addHelpText(
      'after',
      `
Examples:
  berth security-group list
  berth security-group show sg-web`,
    )
  addListCommand(group, io, {
    nouns: 'security groups',
    columns,
    list: (session) => call(session, session.client.GET('/v1/security-groups')),
  })
  addShowCommand(group, io, {
    noun: 'a security group',
    get: (session, id) => call(session, session.client.GET('/v1/security-groups/{id}', { params: { path: { id } } })),
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
  })
}

function portsOf({ port_from: from, port_to: to }: Rule): string {
  if (from === undefined) return to === undefined ? '' : String(to)
  return to === undefined || to === from ? String(from) : `${from}-${to}`
}
