import { setTimeout as delay } from 'node:timers/promises'
import type { Random } from './random.ts'

/** Longest pause between two requests of a client, milliseconds. */
const pauseMs = 20

/** Instances of one client that may be there at the same time. */
const mostInstances = 8

/** An instance whose create was acknowledged. */
export interface Acknowledged {
  id: string
  /** Unique among all creates of a run. */
  name: string
  /** Operations that were acknowledged, the create's first. */
  operations: string[]
  deleted: boolean
}

/** What all clients of a run have been told by the server, and how it went. */
export class Record {
  readonly instances: Acknowledged[] = []
  /** Creates that were sent again with their key after a broken connection. */
  retriedCreates = 0
  replayedCreates = 0
  brokenConnections = 0
  reads = 0
  readonly refusals = new Map<string, number>()
  /** Answers that should never be given. */
  readonly faults: string[] = []

  get operations(): string[] {
    return this.instances.flatMap((instance) => instance.operations)
  }

  refused(what: string): void {
    this.refusals.set(what, (this.refusals.get(what) ?? 0) + 1)
  }
}

interface Answer {
  status: number
  replayed: boolean
  body: { id?: string; operation_id?: string; code?: string; metadata?: { name?: string }; items?: unknown[] }
}

/** One request; null when the connection broke, so that nobody knows whether it was carried out. */
export async function call(
  url: string,
  method: string,
  path: string,
  body?: object,
  key?: string,
): Promise<Answer | null> {
  try {
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(key === undefined ? {} : { 'idempotency-key': key }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(30_000),
    })
    const replayed = response.headers.get('idempotency-replayed') === 'true'
    return { status: response.status, replayed, body: Object(await response.json()) }
  } catch {
    return null
  }
}

/**
 * One client that creates, starts, stops, reboots, deletes and reads instances of its own until it is stopped, and
 * records every write that the server acknowledged. A create or delete that got no answer is sent again, a create with
 * its key.
 */
export async function runClient(
  client: { name: string; url: string; random: Random; signal: AbortSignal },
  record: Record,
): Promise<void> {
  const { url, random, signal } = client
  const own: Acknowledged[] = []
  for (let turn = 0; !signal.aborted; turn++) {
    await delay(random.number(pauseMs))
    const living = own.filter((instance) => !instance.deleted)
    const choice = living.length === 0 ? 0 : random.number(1)
    if (choice < 0.35 && living.length < mostInstances) {
      const created = await create(`${client.name}-${turn}`)
      if (created !== null) own.push(created)
    } else if (choice < 0.65) {
      await act(random.pick(living), random.pick(['start', 'stop', 'reboot']))
    } else if (choice < 0.85) {
      await remove(random.pick(living))
    } else {
      await read(random.pick(own))
    }
  }

  async function create(name: string): Promise<Acknowledged | null> {
    const body = { metadata: { name, labels: { client: client.name } }, spec: { type: 'micro', image: 'micro' } }
    const answer = await untilAnswered('POST', '/v1/instances', body, `key-${name}`, () => record.retriedCreates++)
    if (answer === null) return null
    const { id, operation_id: operation } = answer.body
    if (answer.status !== 201 || id === undefined || operation === undefined) {
      note('create', answer, [])
      return null
    }
    if (answer.replayed) record.replayedCreates++
    const created = { id, name, operations: [operation], deleted: false }
    record.instances.push(created)
    return created
  }

  async function act(instance: Acknowledged, action: string): Promise<void> {
    const answer = await call(url, 'POST', `/v1/instances/${instance.id}/${action}`, {})
    if (answer === null) return broke()
    if (answer.status === 202 && answer.body.operation_id !== undefined) {
      instance.operations.push(answer.body.operation_id)
    } else {
      note(action, answer, [409])
    }
  }

  async function remove(instance: Acknowledged): Promise<void> {
    const path = `/v1/instances/${instance.id}?grace_seconds=0`
    const answer = await untilAnswered('DELETE', path)
    if (answer === null) return
    if (answer.status === 202 && answer.body.operation_id !== undefined) {
      instance.operations.push(answer.body.operation_id)
      instance.deleted = true
    } else {
      note('delete', answer, [])
    }
  }

  async function read(instance: Acknowledged): Promise<void> {
    const answer = await call(
      url,
      'GET',
      random.chance(0.5) ? '/v1/instances?limit=50' : `/v1/instances/${instance.id}`,
    )
    if (answer === null) return broke()
    record.reads++
    if (answer.status !== 200) note('read', answer, [])
  }

  async function untilAnswered(method: string, path: string, body?: object, key?: string, again?: () => void) {
    while (!signal.aborted) {
      const answer = await call(url, method, path, body, key)
      if (answer !== null) return answer
      again?.()
      await broke()
    }
    return null
  }

  async function broke(): Promise<void> {
    record.brokenConnections++
    await delay(250)
  }

  /** An answer other than the one that was wanted: expected ones are counted, others are faults. */
  function note(what: string, answer: Answer, expected: readonly number[]): void {
    const text = `${what}: ${answer.status} ${answer.body.code ?? ''}`
    if (expected.includes(answer.status)) record.refused(text)
    else record.faults.push(`${text} ${JSON.stringify(answer.body).slice(0, 300)}`)
  }
}
