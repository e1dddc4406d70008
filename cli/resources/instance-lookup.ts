import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import { instanceReference, isInstanceId } from '../command/arguments.ts'
import { readPages } from '../command/list.ts'
import { CliError, exitCodes } from '../exit-codes.ts'
import { call, type Session } from '../session.ts'

type Instance = Schemas['Instance']

/** Every instance with a name that is not terminated. */
export async function listInstancesNamed(session: Session, name: string): Promise<Instance[]> {
  const read = (page: object) =>
    call(session, session.client.GET('/v1/instances', { params: { query: { name, ...page } } }))
  return (await readPages(read)).items
}

/**
 * The id of the instance with a name or an id; an id is taken at its word. Throws CliError: not found, or conflict when
 * several instances have the name.
 */
export async function resolveInstanceId(session: Session, reference: string): Promise<string> {
  if (isInstanceId(reference)) return reference
  const items = await listInstancesNamed(session, reference)
  const [first, ...others] = items
  if (first === undefined) throw new CliError(exitCodes.notFound, `there is no instance named ${reference}`)
  if (others.length === 0) return first.id
  throw new CliError(exitCodes.conflict, `${items.length} instances are named ${reference}; name one by its id:`, {
    details: items.map(({ id, status }) => `${id}  ${status.state}`),
  })
}

/** The instance with a name or an id. Throws as resolveInstanceId. */
export async function findInstance(session: Session, reference: string): Promise<Instance> {
  const id = await resolveInstanceId(session, reference)
  return call(session, session.client.GET('/v1/instances/{id}', { params: { path: { id } } }))
}

/** A command about one instance, by its name or id. */
export function onInstance(group: Command, name: string, description: string): Command {
  return group
    .command(name)
    .description(description)
    .argument('<name|id>', 'name or id of an instance', instanceReference)
}
