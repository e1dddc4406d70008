import { createPrivateKey, createPublicKey, hkdfSync, type KeyObject, randomBytes } from 'node:crypto'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { renameDurably } from '../sys/durable-rename.ts'

/** The keys of a host's metadata service, each derived for one purpose (RFC 5869) from the secret of this host. */
export interface MetadataKeys {
  token: Buffer
  nocloud: Buffer
  /** Ed25519; signs identity documents. */
  identity: KeyObject
}

const secretBytes = 32

/** PKCS #8 of an Ed25519 private key up to its 32 bytes (RFC 8410, section 7). */
const ed25519Prefix = Buffer.from('302e020100300506032b657004220420', 'hex')

/** The keys that follow from a secret. Pure. */
export function deriveKeys(secret: Buffer): MetadataKeys {
  const derive = (purpose: string) => Buffer.from(hkdfSync('sha256', secret, '', `berth metadata ${purpose}`, 32))
  const der = Buffer.concat([ed25519Prefix, derive('identity')])
  return {
    token: derive('token'),
    nocloud: derive('nocloud'),
    identity: createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }),
  }
}

/** The public half of the key that signs identity documents, PEM. */
export function identityPublicKey({ identity }: MetadataKeys): string {
  return createPublicKey(identity).export({ type: 'spki', format: 'pem' }).toString()
}

/**
 * The keys of the agent with this data directory. The secret is made once: seed URLs of instances outlive the agent.
 * Beside it lies the public key by which others can check identity documents.
 */
export async function openKeys(dataDirectory: string): Promise<MetadataKeys> {
  const file = join(dataDirectory, 'metadata.key')
  const keys = deriveKeys((await readSecret(file)) ?? (await makeSecret(file)))
  await writeFile(join(dataDirectory, 'metadata-identity.pem'), identityPublicKey(keys), { mode: 0o644 })
  return keys
}

async function readSecret(file: string): Promise<Buffer | null> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw error
  })
  if (text === null) return null
  const secret = Buffer.from(text.trim(), 'base64url')
  if (secret.length !== secretBytes) throw new Error(`${file} does not hold a secret of ${secretBytes} bytes`)
  return secret
}

async function makeSecret(file: string): Promise<Buffer> {
  const secret = randomBytes(secretBytes)
  const partial = `${file}.partial`
  await rm(partial, { force: true })
  await writeFile(partial, `${secret.toString('base64url')}\n`, { mode: 0o600, flag: 'wx' })
  await renameDurably(partial, file)
  return secret
}
