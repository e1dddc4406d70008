import type { DesiredPower } from '@berth/contract/instance-states.ts'
import type { Instance, WaitTarget } from '@berth/contract/instances.ts'
import { ApiError } from '@berth/server/api-error.ts'
import { createInstance } from '@berth/server/domain/instance-create.ts'
import { actOnInstance, deleteInstance } from '@berth/server/domain/instance-power.ts'
import { awaitInstance, readInstance, readInstances } from '@berth/server/domain/instances.ts'
import { smallSubnet } from './fixtures.ts'
import type { Intent } from './promises.ts'
import { ServerGone } from './server-process.ts'
import { stateByTable } from './tables.ts'
import type { World } from './world.ts'

/** A call of a client. `pick` chooses among the instances that the clients know. */
export type Call =
  | { call: 'create'; type: 'micro' | 'cx11' | 'cx51'; subnet: 'small' | 'default' }
  | { call: 'start'; pick: number }
  | { call: 'stop' | 'reboot' | 'delete'; pick: number; grace: number }
  | { call: 'get'; pick: number }
  | { call: 'wait'; pick: number; target: WaitTarget }
  | { call: 'list' }

/** Make a call, as a client does; what it was promised goes into the model when it is answered. */
export async function perform(world: World, call: Call): Promise<void> {
  try {
    await performed(world, call)
  } catch (error) {
    if (error instanceof ServerGone || error instanceof ApiError) return // what that means was noted where it came
    world.violation(`${call.call} failed: ${error instanceof Error ? error.stack : error}`)
  }
}

async function performed(world: World, call: Call): Promise<void> {
  if (call.call === 'create') return create(world, call)
  if (call.call === 'list') return list(world)
  const ids = [...world.promises.instances.keys()]
  const id = ids[call.pick % ids.length]
  if (id === undefined) return
  switch (call.call) {
    case 'get':
      return get(world, id)
    case 'wait':
      void wait(world, id, call.target)
      return
    case 'start':
      return act(world, id, 'start', 0)
    case 'stop':
    case 'reboot':
    case 'delete':
      return act(world, id, call.call, call.grace)
  }
}

async function create(world: World, call: Call & { call: 'create' }): Promise<void> {
  const place = call.subnet === 'small' ? { subnet_id: smallSubnet.id } : {}
  const body = { spec: { type: call.type, image: 'micro', ...place } }
  try {
    const { id, spec, operation_id } = await world.server.call((ctx) =>
      ctx.store.write((tx) => createInstance(ctx, tx, body)),
    )
    world.promises.created(id, operation_id, body, spec)
  } catch (error) {
    if (error instanceof ServerGone) world.promises.unansweredCreates++
    else if (!(error instanceof ApiError && error.code === 'no_addresses')) note(world, 'create', error)
    throw error
  }
}

async function act(
  world: World,
  id: string,
  action: 'start' | 'stop' | 'reboot' | 'delete',
  grace: number,
): Promise<void> {
  const intents = { start: 'running', stop: 'stopped', delete: 'deleted', reboot: null } as const
  const desired = intents[action]
  const intent: Intent = desired === null ? {} : { desired }
  const stored = () => world.server.stored.instance(id)?.desired
  const before = stored()
  const overruled = world.promises.perhapsOf(id)
  try {
    const operationId = await world.server.call((ctx) =>
      action === 'delete'
        ? deleteInstance(ctx, id, grace)
        : ctx.store.write((tx) =>
            actOnInstance(ctx, tx, id, action, action === 'start' ? {} : { grace_seconds: grace }),
          ),
    )
    world.promises.acted(id, operationId, intent, { isDeletion: action === 'delete', overruled })
  } catch (error) {
    if (error instanceof ServerGone) world.promises.unanswered(id, intent)
    else {
      const wanted = [before, world.promises.instances.get(id)?.desired, stored()]
      if (!isMissing(world, id, error) && !isRefused(action, wanted, error)) note(world, `${action} ${id}`, error)
    }
    throw error
  }
}

async function get(world: World, id: string): Promise<void> {
  const before = world.server.commits
  try {
    const { instance } = await world.server.call((ctx) => readInstance(ctx, id))
    if (world.server.commits === before) checkDocument(world, instance)
  } catch (error) {
    if (!(error instanceof ServerGone || isMissing(world, id, error))) note(world, `get ${id}`, error)
    throw error
  }
}

async function list(world: World): Promise<void> {
  const before = world.server.commits
  const items = await world.server.call((ctx) => readInstances(ctx, { labels: [] }, { limit: 1000 }))
  if (world.server.commits !== before) return
  for (const item of items) checkDocument(world, item)
  const listed = items.map((item) => item.id).join()
  const living = [...world.tables().instances.values()].filter((row) => row.terminated_at === null)
  if (listed !== living.map((row) => row.id).join()) world.violation(`the list is ${listed}`)
}

async function wait(world: World, id: string, target: WaitTarget): Promise<void> {
  const open = { id, target }
  world.waits.add(open)
  try {
    const { instance, outcome } = await world.server.waitingCall((ctx, signal) =>
      awaitInstance(ctx, id, { target, timeoutSeconds: 600 }, signal),
    )
    const { state, conditions } = instance.status
    const guest = conditions.find((condition) => condition.type === 'GuestReady')?.status
    const holds = target === 'ready' ? state === 'running' && guest === 'true' : state === target
    if (outcome === 'timed-out') world.violation(`the wait for ${target} of ${id} ended by itself`)
    if ((outcome === 'reached') !== holds)
      world.violation(`${outcome}: ${target} of ${id}, which is ${state}, ${guest}`)
  } catch (error) {
    if (!(error instanceof ServerGone || isMissing(world, id, error))) note(world, `wait for ${id}`, error)
  } finally {
    world.waits.delete(open)
  }
}

/** What a client is shown is what is stored, by the table of the design. */
function checkDocument(world: World, shown: Instance): void {
  const row = world.server.stored.instance(shown.id)
  const differs = (what: string) => world.violation(`${shown.id} is shown with another ${what}`)
  if (row === null) {
    differs('existence')
    return
  }
  if (shown.status.state !== stateByTable(row)) differs(`state, ${shown.status.state} for ${stateByTable(row)}`)
  if (shown.metadata.generation !== row.generation) differs('generation')
  if (shown.status.host_id !== (row.host_id ?? '')) differs('host')
  const address = row.host_id !== null && row.terminated_at === null ? row.private_ip : ''
  if (shown.status.private_ip !== address) differs('address')
}

/** A tombstone that has expired is not found any more. */
function isMissing(world: World, id: string, error: unknown): boolean {
  return error instanceof ApiError && error.code === 'not_found' && world.server.stored.instance(id) === null
}

/** `wanted`: what was wanted of the instance at the moments at which the call may have been looked at. */
function isRefused(action: string, wanted: readonly (DesiredPower | undefined)[], error: unknown): boolean {
  if (!(error instanceof ApiError) || error.code !== 'invalid_state' || action === 'delete') return false
  return wanted.includes('deleted') || (wanted.includes('stopped') && action === 'reboot')
}

function note(world: World, what: string, error: unknown): void {
  world.violation(`${what} was answered with ${error instanceof Error ? error.stack : error}`)
}
