import type { InstancePatch } from '@berth/contract/instances/instances.ts'
import { isMissing, note, Refused, send, wantedOf } from './client.ts'
import { ServerGone } from './server-process.ts'
import type { World } from './world.ts'

/** What a PATCH changes; `sg-none` is a group that there is not. */
export const changes = [
  { metadata: { name: 'web' } },
  { metadata: { name: 'db', labels: { env: 'test' } } },
  { metadata: { labels: { env: null, team: 'red' } } },
  { spec: { security_groups: ['sg-web'] } },
  { spec: { security_groups: ['sg-ssh', 'sg-web'] } },
  { metadata: { name: 'web', labels: { env: 'live' } }, spec: { security_groups: [] } },
  { metadata: { name: 'none' }, spec: { security_groups: ['sg-web', 'sg-none'] } },
] as const satisfies InstancePatch[]

export type Change = InstancePatch

/** Its If-Match: the ETag that a GET gives right before, the first that was ever seen of the instance, or none. */
export type Match = 'current' | 'first' | 'none'

/** Change an instance. */
export async function patch(
  world: World,
  id: string,
  call: { change: Change; match: Match; lost: boolean },
): Promise<void> {
  const { change, match, lost } = call
  const wanted = wantedOf(world, id)
  let etag: string | null = null
  try {
    if (match === 'first') etag = world.promises.firstEtag(id)
    if (match === 'current') {
      const read = await send(world, { method: 'GET', path: `/v1/instances/${id}` })
      etag = read.headers.etag ?? ''
      world.promises.shown(id, {}, null, { instance: JSON.parse(read.text), etag })
    }
    const headers = etag === null ? {} : { headers: { 'if-match': etag } }
    const sent = { method: 'PATCH', path: `/v1/instances/${id}`, body: change, ...headers } as const
    const answer = await send(world, sent, lost)
    world.promises.shown(id, change, etag, { instance: JSON.parse(answer.text), etag: answer.headers.etag ?? '' })
    if (namesNoGroup(change)) world.violation(`${id} was given a group that there is not`)
  } catch (error) {
    if (error instanceof ServerGone) {
      if (!namesNoGroup(change)) world.promises.shown(id, change, etag, null)
    } else if (error instanceof Refused && error.code === 'precondition_failed' && etag !== null) {
      world.promises.refusedAsOld(id, etag)
    } else if (!isMissing(world, id, error) && !isRefused(change, wanted(), error)) note(world, `patch ${id}`, error)
    throw error
  }
}

function namesNoGroup(change: Change): boolean {
  return change.spec?.security_groups?.includes('sg-none') === true
}

function isRefused(change: Change, wanted: readonly (string | undefined)[], error: unknown): boolean {
  if (!(error instanceof Refused)) return false
  if (error.code === 'invalid_state') return wanted.includes('deleted')
  return error.code === 'validation_failed' && namesNoGroup(change)
}
