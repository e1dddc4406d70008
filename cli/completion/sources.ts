import type { Command } from 'commander'
import { type Argument, Option } from 'commander'
import { call, type Session } from '../session.ts'

/** Where names for an option or argument come from. */
export type CompletionSource = keyof typeof lists

/** A server that takes longer is away, as far as somebody who types is concerned, milliseconds. */
const answerWithinMs = 1000

interface Named {
  id: string
  metadata?: { name: string }
}

/** One page of each list: more could not be chosen from. */
const lists = {
  instance: (session: Session, signal: AbortSignal) => call(session, session.client.GET('/v1/instances', { signal })),
  operation: (session: Session, signal: AbortSignal) => call(session, session.client.GET('/v1/operations', { signal })),
  vpc: (session: Session, signal: AbortSignal) => call(session, session.client.GET('/v1/vpcs', { signal })),
  subnet: (session: Session, signal: AbortSignal) => call(session, session.client.GET('/v1/subnets', { signal })),
  host: (session: Session, signal: AbortSignal) => call(session, session.client.GET('/v1/hosts', { signal })),
  image: (session: Session, signal: AbortSignal) => call(session, session.client.GET('/v1/images', { signal })),
  type: (session: Session, signal: AbortSignal) => call(session, session.client.GET('/v1/instance-types', { signal })),
  'ssh-key': (session: Session, signal: AbortSignal) => call(session, session.client.GET('/v1/ssh-keys', { signal })),
  'security-group': (session: Session, signal: AbortSignal) =>
    call(session, session.client.GET('/v1/security-groups', { signal })),
  'public-ip': (session: Session, signal: AbortSignal) =>
    call(session, session.client.GET('/v1/public-ips', { signal })),
}

/** Options that name files of this machine. */
const fileOptions = ['file', 'user-data-file', 'identity', 'data-dir']

/**
 * What completes an option or an argument, found by how commands are made: an option that names a resource is called
 * after its kind (`--vpc`, `--add-security-group`), and the id of a command belongs to its group. Null for none.
 */
export function completionSource(command: Command, target: Option | Argument): CompletionSource | 'files' | null {
  if (target instanceof Option) {
    const name = target.name().replace(/^(?:add|remove)-/, '')
    if (fileOptions.includes(name)) return 'files'
    // the type of an event is no instance type
    const isOther = name === 'type' && command.parent?.name() === 'event'
    return isSource(name) && !isOther ? name : null
  }
  if (target.name() === 'file') return 'files'
  if (target.name() === 'instance') return 'instance' // of `berth public-ip attach`
  if (target.name() !== 'id' && target.name() !== 'name|id') return null
  const group = command.parent?.parent ? command.parent.name() : 'instance' // `berth ssh` has no group
  return isSource(group) ? group : null
}

/** Ids of what there is, each with the name people gave it where no other has the same. Throws as call. */
export async function liveNames(session: Session, source: CompletionSource): Promise<{ id: string; name: string }[]> {
  const { items }: { items: readonly Named[] } = await lists[source](session, AbortSignal.timeout(answerWithinMs))
  // only of these can a command take the name
  const named = source === 'instance' || source === 'host'
  const counts = new Map<string, number>()
  for (const { metadata } of items) if (metadata) counts.set(metadata.name, (counts.get(metadata.name) ?? 0) + 1)
  return items.map(({ id, metadata }) => {
    const isUnique = named && metadata !== undefined && counts.get(metadata.name) === 1
    return { id, name: isUnique ? metadata.name : id }
  })
}

function isSource(name: string): name is CompletionSource {
  return Object.hasOwn(lists, name)
}
