import type { EventAction, EventResource } from '@berth/contract/event-kinds.ts'

/** A change that callers can see. `detail` is what the event says of the resource besides its id. */
export interface Change {
  resource: EventResource
  id: string
  action: EventAction
  detail?: EventDetail
}

export type EventDetail = Record<string, string | number>

/**
 * Add a change to those of the same transaction: each resource has one event, with what it came to in the end. A repair
 * is none of that: each has its own.
 */
export function mergeChange(changes: Map<string, Change>, change: Change): void {
  if (change.action === 'repaired') {
    changes.set(`${change.id} repaired ${changes.size}`, change)
    return
  }
  const key = `${change.resource} ${change.id}` // the id of an image may look like any other
  const before = changes.get(key)
  if (before === undefined) {
    changes.set(key, change)
    return
  }
  const action = before.action === 'created' && change.action === 'updated' ? 'created' : change.action
  changes.set(key, { ...before, ...change, action })
}

/** The type of the event that a change becomes: `instance.updated`. */
export function eventType(change: Change): string {
  return `${change.resource}.${change.action}`
}
