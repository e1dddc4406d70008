import { isDeepStrictEqual } from 'node:util'
import type { Instance, InstancePatch, WaitTarget } from '@berth/contract/instances/instances.ts'
import { ApiError, validationError } from '../../api-error.ts'
import type { Context } from '../../context.ts'
import type { RenderedDocument } from '../../document-blocks.ts'
import { waitForChange } from '../../feed/waiting.ts'
import { touchHost } from '../../store/hosts/hosts.ts'
import { readConsole } from '../../store/instances/console-log.ts'
import {
  findInstance,
  getInstance,
  type StoredInstance,
  stateOf,
  updateMetadata,
  updateSecurityGroups,
} from '../../store/instances/instances.ts'
import { type InstanceFilter, listInstanceIds, listInstances, type Page } from '../../store/instances/list.ts'
import { checkIfMatch, etagOf } from '../if-match.ts'
import { patchedMetadata } from '../labels.ts'
import {
  defaultSecurityGroupId,
  ensureDefaultSecurityGroup,
  unknownSecurityGroups,
} from '../networks/security-groups.ts'
import { instanceDocument } from './document.ts'

/** A page of instances in the order they were made; terminated ones only when asked for by state. */
export async function renderInstances(ctx: Context, filter: InstanceFilter, page: Page): Promise<RenderedDocument[]> {
  const { documents, store } = ctx
  if (!documents.enabled) return (await listInstances(store.read, filter, page)).map(rendered)
  return documents.list(
    () => listInstanceIds(store.read, filter, page),
    async (id) => rendered(await getInstance(store.read, id)),
  )
}

/** The instance as it is. Throws not_found. */
export async function renderInstance({ documents, store }: Context, id: string): Promise<RenderedDocument> {
  return documents.get(id, async () => rendered(await getInstance(store.read, id)))
}

function rendered(instance: StoredInstance): RenderedDocument {
  return { id: instance.id, body: JSON.stringify(instanceDocument(instance)), etag: instanceEtag(instance) }
}

/** An instance with its entity tag. */
export interface VersionedInstance {
  instance: Instance
  etag: string
}

export type WaitOutcome = 'reached' | 'timed-out' | 'impossible'

/** The instance as soon as `target` holds, cannot come any more, or the time is over. Throws not_found. */
export async function awaitInstance(
  ctx: Context,
  id: string,
  wait: { target: WaitTarget; timeoutSeconds: number },
  signal: AbortSignal,
): Promise<VersionedInstance & { outcome: WaitOutcome }> {
  const last = await waitForChange(ctx.store, [id], {
    slots: ctx.waitSlots,
    timeoutMs: wait.timeoutSeconds * 1000,
    signal,
    read: (db) => getInstance(db, id),
    done: (current) => waitOutcome(current, wait.target) !== null,
  })
  return { ...versioned(last), outcome: waitOutcome(last, wait.target) ?? 'timed-out' }
}

function versioned(instance: StoredInstance): VersionedInstance {
  return { instance: instanceDocument(instance), etag: instanceEtag(instance) }
}

function instanceEtag(instance: StoredInstance): string {
  return etagOf(instance.generation, instance.metadata_revision)
}

/**
 * Change name, labels and security groups. Groups are a change of intent: they are in force when the host has reported
 * the new generation. Throws precondition_failed, validation_failed, and invalid_state once a deletion was asked for.
 */
export async function patchInstance(
  ctx: Context,
  id: string,
  body: InstancePatch,
  ifMatch: string | undefined,
): Promise<VersionedInstance> {
  return ctx.store.write(async (tx) => {
    let instance = await getInstance(tx.db, id)
    checkIfMatch(ifMatch, instanceEtag(instance))
    if (instance.desired === 'deleted') {
      throw new ApiError('invalid_state', `Instance ${id} is ${stateOf(instance)}; it cannot be changed any more.`)
    }
    const metadata = patchedMetadata(instance, body.metadata)
    if (!isDeepStrictEqual(metadata, { name: instance.name, labels: instance.labels })) {
      instance = await updateMetadata(tx, instance, metadata)
    }
    const groups = body.spec?.security_groups
    if (groups !== undefined && !isDeepStrictEqual(groups, instance.security_groups)) {
      if (groups.includes(defaultSecurityGroupId)) await ensureDefaultSecurityGroup(ctx, tx)
      const faults = await unknownSecurityGroups(tx.db, groups)
      if (faults.length > 0) throw validationError(faults)
      instance = await updateSecurityGroups(tx, instance, groups)
      if (instance.host_id !== null) await touchHost(tx, instance.host_id)
    }
    return versioned(instance)
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
