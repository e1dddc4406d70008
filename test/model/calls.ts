import type { WaitTarget } from '@berth/contract/instances/bounds.ts'
import type { Instance } from '@berth/contract/instances/instances.ts'
import { isMissing, note, Refused, send, sendAndWait } from './client.ts'
import { type Change, type Match, patch } from './patches.ts'
import { act, again, create, type Delivery, remove } from './posts.ts'
import { callForPublicIp, type PublicIpCall } from './public-ips.ts'
import { ServerGone } from './server-process.ts'
import { stateByTable } from './tables.ts'
import type { World } from './world.ts'

/** A call of a client. `pick` chooses among the instances that the clients know, or what they have sent with a key. */
export type Call =
  | ({ call: 'create'; type: 'micro' | 'cx11' | 'cx51'; subnet: 'small' | 'default' } & Delivery)
  | ({ call: 'start'; pick: number } & Delivery)
  | ({ call: 'stop' | 'reboot'; pick: number; grace: number } & Delivery)
  | { call: 'again'; pick: number; otherBody: boolean; lost: boolean }
  | { call: 'delete'; pick: number; grace: number }
  | { call: 'patch'; pick: number; change: Change; match: Match; lost: boolean }
  | PublicIpCall
  | { call: 'get'; pick: number }
  | { call: 'wait'; pick: number; target: WaitTarget }
  | { call: 'list' }

/** Make a call, as a client does; what it was promised goes into the model when it is answered. */
export async function perform(world: World, call: Call): Promise<void> {
  if (++world.underWay > 1) world.overlap++
  try {
    await performed(world, call)
  } catch (error) {
    if (error instanceof ServerGone || error instanceof Refused) return // what that means was noted where it came
    world.violation(`${call.call} failed: ${error instanceof Error ? error.stack : error}`)
  } finally {
    world.underWay--
  }
}

async function performed(world: World, call: Call): Promise<void> {
  if (call.call === 'create') return create(world, call)
  if (call.call === 'again') return again(world, call)
  if (call.call === 'list') return list(world)
  if (call.call === 'allocate' || call.call === 'attach' || call.call === 'release') return callForPublicIp(world, call)
  const id = world.promises.pick(call.pick)
  if (id === undefined) return
  switch (call.call) {
    case 'get':
      return get(world, id)
    case 'wait':
      void wait(world, id, call.target)
      return
    case 'start':
      return act(world, id, { action: 'start', body: {} }, call)
    case 'stop':
    case 'reboot':
      return act(world, id, { action: call.call, body: { grace_seconds: call.grace } }, call)
    case 'delete':
      return remove(world, id, call.grace)
    case 'patch':
      return patch(world, id, call)
  }
}

async function get(world: World, id: string): Promise<void> {
  const before = world.server.commits
  try {
    const { headers, text } = await send(world, { method: 'GET', path: `/v1/instances/${id}` })
    const shown: Instance = JSON.parse(text)
    world.promises.shown(id, {}, null, { instance: shown, etag: headers.etag ?? '' })
    if (world.server.commits === before) checkDocument(world, shown)
  } catch (error) {
    if (!(error instanceof ServerGone || isMissing(world, id, error))) note(world, `get ${id}`, error)
    throw error
  }
}

async function list(world: World): Promise<void> {
  const before = world.server.commits
  const { text } = await send(world, { method: 'GET', path: '/v1/instances' })
  const { items }: { items: Instance[] } = JSON.parse(text)
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
    const path = `/v1/instances/${id}?wait_for=${target}&timeout=600`
    const { headers, text } = await sendAndWait(world, { method: 'GET', path })
    const { status }: Instance = JSON.parse(text)
    const guest = status.conditions.find((condition) => condition.type === 'GuestReady')?.status
    const holds = target === 'ready' ? status.state === 'running' && guest === 'true' : status.state === target
    const outcome = headers['berth-wait']
    if (outcome === 'timed-out') world.violation(`the wait for ${target} of ${id} ended by itself`)
    if ((outcome === 'reached') !== holds)
      world.violation(`${outcome}: ${target} of ${id}, which is ${status.state}, ${guest}`)
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
  const { metadata, status } = shown
  if (status.state !== stateByTable(row)) differs(`state, ${status.state} for ${stateByTable(row)}`)
  if (metadata.generation !== row.generation) differs('generation')
  if (status.observed_generation !== (row.report?.generation ?? 0)) differs('observed generation')
  if (status.host_id !== (row.host_id ?? '')) differs('host')
  const address = row.host_id !== null && row.terminated_at === null ? row.private_ip : ''
  if (status.private_ip !== address) differs('address')
  if (status.public_ip !== (address === '' ? '' : row.public_ip)) differs('public address')
}
