import type { Host, HostPatch } from '@berth/contract/hosts/hosts.ts'
import { toRfc3339 } from '@berth/contract/units.ts'
import type { Context } from '../../context.ts'
import { getHost, listHostPage, listHostRoom, type StoredHost } from '../../store/hosts/hosts.ts'
import { type Listed, mapListed, type Page, type ResourceFilter } from '../../store/resource-list.ts'
import type { Reader } from '../../store/transaction.ts'
import { updateResource } from '../../store/versions.ts'
import { checkIfMatch, entityTag, type Versioned } from '../entity-tag.ts'
import type { Candidate } from '../instances/placement.ts'
import { metadataDocument, patchedMetadata } from '../labels.ts'

export async function readHost(ctx: Context, id: string): Promise<Versioned<Host>> {
  return versioned(ctx, await getHost(ctx.store.read, id))
}

export async function readHosts(ctx: Context, filter: ResourceFilter, page: Page): Promise<Listed<Host>> {
  return mapListed(await listHostPage(ctx.store.read, filter, page), (host) => document(ctx, host))
}

/** Change a host's name, labels, or whether anything new is placed on it. */
export async function patchHost(
  ctx: Context,
  id: string,
  body: HostPatch,
  ifMatch: string | undefined,
): Promise<Versioned<Host>> {
  return ctx.store.write(async (tx) => {
    const host = await getHost(tx.db, id)
    checkIfMatch(ifMatch, host)
    const { name, labels } = patchedMetadata(host, body.metadata)
    const schedulable = body.spec?.schedulable === undefined ? host.schedulable : Number(body.spec.schedulable)
    return versioned(ctx, await updateResource(tx, 'host', host, { name, labels, schedulable }))
  })
}

/**
 * The hosts that an instance may be placed on, as far as they have ever connected. With `withRoom` only those that
 * have room for anything at all: enough to choose one, not to explain why there is none.
 */
export async function placementCandidates(
  ctx: Context,
  db: Reader,
  which: { withRoom: boolean } = { withRoom: false },
): Promise<Candidate[]> {
  return (await listHostRoom(db, which)).map((host) => ({ host, ready: isReady(ctx, host) }))
}

/** Whether a host was heard of lately enough to be given work. */
export function isReady(ctx: Context, host: Pick<StoredHost, 'last_seen_at'>): boolean {
  return ctx.now() - host.last_seen_at < ctx.settings.hostUnreachableMs
}

function versioned(ctx: Context, host: StoredHost): Versioned<Host> {
  return { document: document(ctx, host), etag: entityTag(host) }
}

function document(ctx: Context, host: StoredHost): Host {
  return {
    id: host.id,
    metadata: metadataDocument(host),
    spec: { schedulable: host.schedulable === 1 },
    status: {
      state: isReady(ctx, host) ? 'ready' : 'unreachable',
      hypervisor: host.hypervisor,
      accelerator: host.accelerator,
      accelerator_reason: host.accelerator_reason,
      capacity: { vcpus: host.capacity_vcpus, memory_mb: host.capacity_memory_mb, disk_gb: host.capacity_disk_gb },
      allocated: {
        vcpus: host.allocated_vcpus,
        memory_mb: host.allocated_memory_mb,
        disk_gb: host.allocated_disk_gb,
      },
      last_seen_at: host.last_seen_at === 0 ? '' : toRfc3339(host.last_seen_at),
      agent_version: host.agent_version,
    },
  }
}
