import { createHash } from 'node:crypto'
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

const acceptedTypes = new Set([
  'ssh-ed25519',
  'ssh-rsa',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
  'sk-ssh-ed25519@openssh.com',
  'sk-ecdsa-sha2-nistp256@openssh.com',
])

/** Register a public key. */
export async function createSshKey(ctx: Context, tx: Transaction, body: SshKeyCreate): Promise<SshKey> {
  const publicKey = body.spec.public_key.trim()
  const parsed = parsePublicKey(publicKey)
  if ('fault' in parsed) throw validationError([{ pointer: '/spec/public_key', message: parsed.fault }])
  const id = body.id ?? newId('key', ctx.now())
  if ((await findSshKey(tx.db, id)) !== null) throw new ApiError('already_exists', `There is an SSH key ${id} already.`)
  await insertSshKey(tx, {
    id,
    name: body.metadata?.name ?? id,
    labels: body.metadata?.labels ?? {},
    created_at: ctx.now(),
    public_key: publicKey,
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

/**
 * The fingerprint of a public key line (RFC 4253, section 6.6: type, base64 blob that starts with the type again,
 * comment), or what is wrong with it. Options before the type, as authorized_keys allows, are refused.
 */
export function parsePublicKey(line: string): { fingerprint: string } | { fault: string } {
  if (line.includes('PRIVATE KEY')) return { fault: 'is a private key; give the .pub file' }
  if (/[\p{Cc}\p{Zl}\p{Zp}]/u.test(line)) return { fault: 'must be a single line without control characters' }
  const [type = '', base64 = ''] = line.split(/ +/)
  if (!acceptedTypes.has(type)) return { fault: `must start with one of ${[...acceptedTypes].join(', ')}` }
  const blob = Buffer.from(base64, 'base64')
  if (blob.toString('base64').replace(/=+$/, '') !== base64.replace(/=+$/, '')) return { fault: 'is not valid base64' }
  const fields = readFields(blob)
  if (fields === null || fields[0]?.toString('latin1') !== type || !fieldsFit(type, fields)) {
    return { fault: `does not hold a whole key of type ${type}` }
  }
  return { fingerprint: `SHA256:${createHash('sha256').update(blob).digest('base64').replace(/=+$/, '')}` }
}

/** The length-prefixed strings a blob consists of (RFC 4251, section 5), or null when it does not end with one. */
function readFields(blob: Buffer): Buffer[] | null {
  const fields: Buffer[] = []
  let position = 0
  while (position < blob.length) {
    if (position + 4 > blob.length) return null
    const end = position + 4 + blob.readUInt32BE(position)
    if (end > blob.length) return null
    fields.push(blob.subarray(position + 4, end))
    position = end
  }
  return fields
}

/** Number of strings in a blob by type: RFC 4253 6.6, RFC 5656 3.1, RFC 8709 4, OpenSSH's PROTOCOL.u2f. */
function fieldsFit(type: string, fields: readonly Buffer[]): boolean {
  const key = fields[1]
  if (key === undefined || fields.some((field) => field.length === 0)) return false
  if (type === 'ssh-ed25519') return fields.length === 2 && key.length === 32
  if (type === 'sk-ssh-ed25519@openssh.com') return fields.length === 3 && key.length === 32
  return fields.length === (type.startsWith('sk-') ? 4 : 3)
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
