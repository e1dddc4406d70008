import type { InstanceCreate } from '@berth/contract/instances/instances.ts'
import { isMissing, note, Refused, send, wantedOf } from './client.ts'
import { smallSubnet } from './fixtures.ts'
import type { Intent } from './promises.ts'
import { ServerGone } from './server-process.ts'
import type { World } from './world.ts'

/** How a POST is sent: with an Idempotency-Key of its own or with none, and whether its answer gets lost. */
export interface Delivery {
  keyed: boolean
  lost: boolean
}

/** What may be asked of an instance. */
type Action = { action: 'start'; body: object } | { action: 'stop' | 'reboot'; body: { grace_seconds: number } }

/** A POST as a client may send it, once or again. */
export type Post = { key: string | null } & (
  | { asks: 'create'; body: InstanceCreate }
  | ({ asks: 'action'; id: string } & Action)
)

const intents: Record<Action['action'], Intent> = {
  start: { desired: 'running' },
  stop: { desired: 'stopped' },
  reboot: { reboot: true },
}

/** Ask for an instance. */
export async function create(
  world: World,
  call: { type: string; subnet: 'small' | 'default' } & Delivery,
): Promise<void> {
  const key = call.keyed ? world.keys.make() : null
  const place = call.subnet === 'small' ? { subnet_id: smallSubnet.id } : {}
  // the name tells whose instance it is, also when nobody was answered
  const named = key === null ? {} : { metadata: { name: key } }
  const body = { ...named, spec: { type: call.type, image: 'micro', ...place } }
  return post(world, { asks: 'create', key, body }, call.lost)
}

/** Ask that an instance starts, stops or boots anew. */
export async function act(world: World, id: string, action: Action, delivery: Delivery): Promise<void> {
  const key = delivery.keyed ? world.keys.make() : null
  return post(world, { asks: 'action', key, id, ...action }, delivery.lost)
}

/** Send a POST again that was sent with a key, the latest by `pick` 0; or another one with its key. */
export async function again(world: World, call: { pick: number; otherBody: boolean; lost: boolean }): Promise<void> {
  const { sent } = world.keys
  const before = sent[sent.length - 1 - (call.pick % sent.length)]
  if (before === undefined) return
  return post(world, call.otherBody ? anotherOf(before) : before, call.lost)
}

function anotherOf(before: Post): Post {
  if (before.asks === 'create') {
    const { spec } = before.body
    return { ...before, body: { ...before.body, spec: { ...spec, type: spec.type === 'micro' ? 'cx11' : 'micro' } } }
  }
  if (before.action === 'start') return { ...before, action: 'stop', body: { grace_seconds: 1 } }
  return { ...before, body: { grace_seconds: before.body.grace_seconds + 1 } }
}

async function post(world: World, post: Post, lost: boolean): Promise<void> {
  if (post.asks === 'create') return postCreate(world, post, lost)
  return postAction(world, post, lost)
}

async function postCreate(world: World, post: Post & { asks: 'create' }, lost: boolean): Promise<void> {
  const { key, body } = post
  const attempt = key === null ? null : world.keys.begin(key, post)
  try {
    const answer = await send(world, { method: 'POST', path: '/v1/instances', body, ...headersOf(key) }, lost)
    const isNew = attempt === null || world.keys.answered(attempt, answer)
    const { id, metadata, spec, operation_id } = JSON.parse(answer.text)
    if (isNew) world.promises.created(id, operation_id, body, { metadata, spec })
  } catch (error) {
    if (error instanceof ServerGone) {
      if (attempt === null) world.promises.unansweredCreates++
      else world.keys.broke(attempt)
    } else {
      if (attempt !== null) world.keys.refused(attempt, error)
      if (!(error instanceof Refused && ['no_addresses', 'idempotency_key_reused'].includes(error.code)))
        note(world, 'create', error)
    }
    throw error
  }
}

async function postAction(world: World, post: Post & { asks: 'action' }, lost: boolean): Promise<void> {
  const { key, id, action, body } = post
  const intent = intents[action]
  const wanted = wantedOf(world, id)
  const overruled = world.promises.begun(id, intent)
  const attempt = key === null ? null : world.keys.begin(key, post)
  try {
    const path = `/v1/instances/${id}/${action}`
    const answer = await send(world, { method: 'POST', path, body, ...headersOf(key) }, lost)
    if (attempt !== null && !world.keys.answered(attempt, answer)) return
    const { operation_id } = JSON.parse(answer.text)
    world.promises.acted(id, operation_id, intent, { isDeletion: false, overruled })
  } catch (error) {
    if (error instanceof ServerGone) {
      world.promises.unanswered(id, intent)
      if (attempt !== null) world.keys.broke(attempt)
    } else {
      if (attempt !== null) world.keys.refused(attempt, error)
      const isReused = error instanceof Refused && error.code === 'idempotency_key_reused'
      if (!isReused && !isMissing(world, id, error) && !isRefused(action, wanted(), error))
        note(world, `${action} ${id}`, error)
    }
    throw error
  }
}

/** Delete an instance. */
export async function remove(world: World, id: string, grace: number): Promise<void> {
  const intent: Intent = { desired: 'deleted' }
  const overruled = world.promises.begun(id, intent)
  try {
    const answer = await send(world, { method: 'DELETE', path: `/v1/instances/${id}?grace_seconds=${grace}` })
    world.promises.acted(id, JSON.parse(answer.text).operation_id, intent, { isDeletion: true, overruled })
  } catch (error) {
    if (error instanceof ServerGone) world.promises.unanswered(id, intent)
    else if (!isMissing(world, id, error)) note(world, `delete ${id}`, error)
    throw error
  }
}

const headersOf = (key: string | null) => (key === null ? {} : { headers: { 'idempotency-key': key } })

/** `wanted`: what was wanted of the instance at the moments at which the call may have been looked at. */
function isRefused(action: string, wanted: readonly (string | undefined)[], error: unknown): boolean {
  if (!(error instanceof Refused) || error.code !== 'invalid_state') return false
  return wanted.includes('deleted') || (wanted.includes('stopped') && action === 'reboot')
}
