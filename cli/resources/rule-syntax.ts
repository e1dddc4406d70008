import { chosenIdPattern } from '@berth/contract/ids.ts'
import { networkFault } from '@berth/contract/networks/cidr.ts'
import type { Schemas } from '@berth/sdk/client.ts'
import { InvalidArgumentError } from 'commander'

type Rule = Schemas['SecurityGroupRule']

/** How a rule is written, for help texts. */
export const ruleSyntax = `A rule is PROTOCOL[:PORTS]:REMOTE, with a description behind a space:
  tcp:80-90:0.0.0.0/0     ports 80 to 90 from anywhere
  tcp:22:sg-bastion       port 22 from members of a group
  "udp:53:10.0.0.0/8 DNS" with a description
  icmp:any                a protocol without ports; any is 0.0.0.0/0
  any:sg-web              every protocol`

const protocols = ['tcp', 'udp', 'icmp', 'any'] as const
const groupId = new RegExp(chosenIdPattern('sg'))

/** A rule as people write it. Throws InvalidArgumentError that says which part is wrong. */
export function parseRule(text: string, direction: Rule['direction']): Rule {
  const [, shape = '', description = ''] = /^(\S*)(?:\s+(.*))?$/s.exec(text.trim()) ?? []
  const parts = shape.split(':')
  const [protocolText = '', remoteText = ''] = [parts[0], parts.at(-1)]
  const protocol = protocols.find((known) => known === protocolText)
  if (protocol === undefined || parts.length < 2 || parts.length > 3) {
    throw new InvalidArgumentError(`It must be PROTOCOL[:PORTS]:REMOTE with ${protocols.join(', ')} as protocol.`)
  }
  const ports = parts.length === 3 ? parsePorts(parts[1] ?? '') : {}
  if ('port_from' in ports && protocol !== 'tcp' && protocol !== 'udp') {
    throw new InvalidArgumentError(`Only tcp and udp have ports, ${protocol} has none.`)
  }
  return { direction, protocol, ...ports, remote: parseRemote(remoteText), description }
}

/** Add another rule of an option that may be repeated. */
export function repeatedRule(direction: Rule['direction']): (text: string, previous?: Rule[]) => Rule[] {
  return (text, previous = []) => [...previous, parseRule(text, direction)]
}

/** A rule as it is written, without its description. */
export function formatRule(rule: Rule): string {
  const { protocol, remote } = rule
  const ports = formatPorts(rule)
  return [protocol, ...(ports === '' ? [] : [ports]), 'cidr' in remote ? remote.cidr : remote.security_group].join(':')
}

/** `80` or `80-90`; "" for all ports. */
export function formatPorts({ port_from: from, port_to: to }: Rule): string {
  if (from === undefined) return to === undefined ? '' : String(to)
  return to === undefined || to === from ? String(from) : `${from}-${to}`
}

/** Whether two rules let the same through; their descriptions may differ. */
export function isSameRule(a: Rule, b: Rule): boolean {
  return a.direction === b.direction && formatRule(a) === formatRule(b)
}

function parsePorts(text: string): { port_from: number; port_to: number } {
  const [, fromText, toText] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text) ?? []
  const from = Number(fromText)
  const to = Number(toText ?? fromText)
  if (!(from >= 0 && to <= 65_535 && from <= to)) {
    throw new InvalidArgumentError('Ports are one from 0 to 65535, or a range as 80-90.')
  }
  return { port_from: from, port_to: to }
}

function parseRemote(text: string): Rule['remote'] {
  if (text === 'any') return { cidr: '0.0.0.0/0' }
  if (groupId.test(text)) return { security_group: text }
  const fault = networkFault(text)
  if (fault === null) return { cidr: text }
  if (/^[0-9]/.test(text)) throw new InvalidArgumentError(`The remote ${text} ${fault}.`)
  throw new InvalidArgumentError('The remote is a network (10.0.0.0/8), a security group (sg-…), or any.')
}
