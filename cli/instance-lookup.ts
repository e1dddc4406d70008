import type { Schemas } from '@berth/sdk/client.ts'
import { isInstanceId } from './arguments.ts'
import { CliError, exitCodes } from './exit-codes.ts'
import { call, type Session } from './session.ts'

type Instance = Schemas['Instance']

export interface InstanceFilter {
  state?: Instance['status']['state']
  name?: string
}

/** Every instance that matches, page after page. */
export async function listInstances(session: Session, filter: InstanceFilter): Promise<{ items: Instance[] }> {
  const items: Instance[] = []
  let cursor: string | undefined
  do {
    const query = { ...filter, ...(cursor === undefined ? {} : { cursor }) }
    const page = await call(session, session.client.GET('/v1/instances', { params: { query } }))
    items.push(...page.items)
    cursor = page.next_cursor
  } while (cursor !== undefined)
  return { items }
}

/**
 * The id of the instance with a name or an id; an id is taken at its word. Throws CliError: not found, or conflict when
 * several instances have the name.
 */
export async function resolveInstanceId(session: Session, reference: string): Promise<string> {
  if (isInstanceId(reference)) return reference
  const { items } = await listInstances(session, { name: reference })
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
