import { newId } from '@berth/contract/ids.ts'
import type { SshKey, SshKeyCreate, SshKeyPatch } from '@berth/contract/instances/ssh-keys.ts'
import { ApiError, inUse, mostUsers, validationError } from '../../api-error.ts'
import type { Context } from '../../context.ts'
import {
  deleteSshKey as deleteSshKeyRow,
  findSshKey,
  getSshKey,
  insertSshKey,
  listInstancesWithSshKey,
  listSshKeys,
  type StoredSshKey,
} from '../../store/instances/ssh-keys.ts'
import { type Listed, mapListed, type Page, type ResourceFilter } from '../../store/resource-list.ts'
import type { Transaction } from '../../store/transaction.ts'
import { updateResource } from '../../store/versions.ts'
import { checkIfMatch, entityTag, type Versioned } from '../entity-tag.ts'
import { metadataDocument, patchedMetadata } from '../labels.ts'
import { parsePublicKey } from './public-key.ts'

/** Register a public key. */
export async function createSshKey(ctx: Context, tx: Transaction, body: SshKeyCreate): Promise<SshKey> {
  const parsed = parsePublicKey(body.spec.public_key)
  if ('fault' in parsed) throw validationError([{ pointer: '/spec/public_key', message: parsed.fault }])
  const id = body.id ?? newId('key', ctx.now())
  if ((await findSshKey(tx.db, id)) !== null) throw new ApiError('already_exists', `There is an SSH key ${id} already.`)
  await insertSshKey(tx, {
    id,
    name: body.metadata?.name ?? id,
    labels: body.metadata?.labels ?? {},
    created_at: ctx.now(),
    public_key: parsed.line,
    fingerprint: parsed.fingerprint,
  })
  return document(await getSshKey(tx.db, id))
}

export async function readSshKey(ctx: Context, id: string): Promise<Versioned<SshKey>> {
  return versioned(await getSshKey(ctx.store.read, id))
}

export async function readSshKeys(ctx: Context, filter: ResourceFilter, page: Page): Promise<Listed<SshKey>> {
  return mapListed(await listSshKeys(ctx.store.read, filter, page), document)
}

/** Change a key's name and labels. */
export async function patchSshKey(
  ctx: Context,
  id: string,
  body: SshKeyPatch,
  ifMatch: string | undefined,
): Promise<Versioned<SshKey>> {
  return ctx.store.write(async (tx) => {
    const key = await getSshKey(tx.db, id)
    checkIfMatch(ifMatch, key)
    return versioned(await updateResource(tx, 'ssh_key', key, patchedMetadata(key, body.metadata)))
  })
}

/** Forget a key that no live instance was made with. */
export async function deleteSshKey(ctx: Context, id: string): Promise<void> {
  await ctx.store.writeMakingRoom(async (tx) => {
    await getSshKey(tx.db, id)
    const users = await listInstancesWithSshKey(tx.db, id, mostUsers + 1)
    if (users.length > 0) throw inUse(`SSH key ${id}`, users)
    await deleteSshKeyRow(tx, id)
  })
}

function versioned(key: StoredSshKey): Versioned<SshKey> {
  return { document: document(key), etag: entityTag(key) }
}

function document(key: StoredSshKey): SshKey {
  return {
    id: key.id,
    metadata: metadataDocument(key),
    spec: { public_key: key.public_key },
    status: { fingerprint: key.fingerprint },
  }
}
