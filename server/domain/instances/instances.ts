import { isDeepStrictEqual } from 'node:util'
import type { WaitTarget } from '@berth/contract/instances/bounds.ts'
import type { Instance, InstancePatch } from '@berth/contract/instances/instances.ts'
import { ApiError, validationError } from '../../api-error.ts'
import type { Context } from '../../context.ts'
import { waitForChange } from '../../feed/waiting.ts'
import { readConsole } from '../../store/instances/console-log.ts'
import {
  findInstance,
  getInstance,
  type StoredInstance,
  stateOf,
  updateDescription,
} from '../../store/instances/instances.ts'
import { type InstanceFilter, listInstances } from '../../store/instances/list.ts'
import { type Listed, mapListed, type Page } from '../../store/resource-list.ts'
import { checkIfMatch, entityTag, type Version, type Versioned } from '../entity-tag.ts'
import { patchedMetadata } from '../labels.ts'
import {
  defaultSecurityGroupId,
  ensureDefaultSecurityGroup,
  unknownSecurityGroups,
} from '../networks/security-groups.ts'
import { instanceDocument } from './document.ts'

/** A page of instances in the order they were made; terminated ones only when asked for by state. */
export async function readInstances(ctx: Context, filter: InstanceFilter, page: Page): Promise<Listed<Instance>> {
  return mapListed(await listInstances(ctx.store.read, filter, page), instanceDocument)
}

/** The instance as it is. Throws not_found. */
export async function readInstance({ store }: Context, id: string): Promise<Versioned<Instance>> {
  return versioned(await getInstance(store.read, id))
}

export type WaitOutcome = 'reached' | 'timed-out' | 'impossible'

/** The instance as soon as `target` holds, cannot come any more, or the time is over. Throws not_found. */
export async function awaitInstance(
  ctx: Context,
  id: string,
  wait: { target: WaitTarget; timeoutSeconds: number },
  signal: AbortSignal,
): Promise<Versioned<Instance> & { outcome: WaitOutcome }> {
  const last = await waitForChange(ctx.store, [id], {
    slots: ctx.waitSlots,
    timeoutMs: wait.timeoutSeconds * 1000,
    signal,
    read: (db) => getInstance(db, id),
    done: (current) => waitOutcome(current, wait.target) !== null,
  })
  return { ...versioned(last), outcome: waitOutcome(last, wait.target) ?? 'timed-out' }
}

function versioned(instance: StoredInstance): Versioned<Instance> {
  return { document: instanceDocument(instance), etag: entityTag(versionOf(instance)) }
}

/** No instance ever gets the id of another. */
function versionOf({ id, generation, metadata_revision }: StoredInstance): Version {
  return { uid: id, generation, metadata_revision }
}

/**
 * Change name, labels and security groups. Name and groups are a change of intent: they are in force when the host has
 * reported the new generation. Throws precondition_failed, validation_failed, and invalid_state once a deletion was asked for.
 */
export async function patchInstance(
  ctx: Context,
  id: string,
  body: InstancePatch,
  ifMatch: string | undefined,
): Promise<Versioned<Instance>> {
  return ctx.store.write(async (tx) => {
    const instance = await getInstance(tx.db, id)
    checkIfMatch(ifMatch, versionOf(instance))
    if (instance.desired === 'deleted') {
      throw new ApiError('invalid_state', `Instance ${id} is ${stateOf(instance)}; it cannot be changed any more.`)
    }
    const groups = body.spec?.security_groups ?? instance.security_groups
    if (!isDeepStrictEqual(groups, instance.security_groups)) {
      if (groups.includes(defaultSecurityGroupId)) await ensureDefaultSecurityGroup(ctx, tx)
      const faults = await unknownSecurityGroups(tx.db, groups)
      if (faults.length > 0) throw validationError(faults)
    }
    const described = { ...patchedMetadata(instance, body.metadata), security_groups: groups }
    return versioned(await updateDescription(tx, instance, described))
  })
}

/** Whether a waiter can be answered: null while the target may still come. */
function waitOutcome(instance: StoredInstance, target: WaitTarget): 'reached' | 'impossible' | null {
  const state = stateOf(instance)
  const { report } = instance
  // what the host said before it saw this intent is about the boot before
  const current = report?.seen_generation === instance.generation && report.reboots >= instance.reboots
  const guest = report?.conditions.GuestReady?.status
  switch (target) {
    case 'terminated':
      return state === 'terminated' ? 'reached' : null
    case 'stopped':
      if (state === 'stopped') return 'reached'
      return instance.desired === 'deleted' ? 'impossible' : null
    case 'running':
      if (instance.desired !== 'running') return 'impossible'
      return state === 'running' && current ? 'reached' : null
    case 'ready':
      if (instance.desired !== 'running') return 'impossible'
      if (state !== 'running' || !current) return null
      if (guest === 'true') return 'reached'
      return guest === 'false' ? 'impossible' : null
  }
}

/** Serial output of an instance, as text; `tail` keeps the last lines. Not valid UTF-8 is replaced. */
export async function readConsoleLog(ctx: Context, id: string, tail: number | undefined): Promise<string> {
  if ((await findInstance(ctx.store.read, id)) === null) throw new ApiError('not_found', `There is no instance ${id}.`)
  const text = (await readConsole(ctx.store.read, id)).toString('utf8')
  if (tail === undefined) return text
  const lines = text.split('\n')
  const ended = lines.at(-1) === '' ? 1 : 0
  return lines.slice(-(tail + ended)).join('\n')
}
