import Type, { type Static } from 'typebox'
import { chosenIdPattern } from '../ids.ts'
import { Metadata, MetadataInput, MetadataPatch, named, pageOf, ref, strict } from '../schema.ts'

const SshKeyId = Type.String({ pattern: chosenIdPattern('key') })

/** Longest public key line, characters; one of RSA with 16,384 bits has about 2,800. */
export const longestPublicKey = 4096

const PublicKey = Type.String({
  minLength: 1,
  maxLength: longestPublicKey,
  description:
    'One line as in id_ed25519.pub: ed25519, ecdsa, a security key of these, or RSA of 2048 to 16384 bits. What is around ' +
    'and between its parts is stored and shown as one space',
  examples: ['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@laptop'],
})

export interface KeyParts {
  type: string
  /** Of the blob, with its padding. */
  base64: string
  /** All of it in the form in which a key is stored, shown and handed to guests: one space between the parts. */
  line: string
}

/**
 * The parts of a public key line, whose key is not looked at. A file may have spaces and tabs between them, and line ends
 * or a byte order mark around them; sshd does not read base64 without its padding. Pure.
 */
export function keyParts(text: string): KeyParts {
  const [type = '', bare = '', ...words] = text.trim().split(/[ \t]+/)
  const base64 = bare.padEnd(bare.length + ((4 - (bare.length % 4)) % 4), '=')
  const comment = words.join(' ')
  return { type, base64, line: [type, base64, comment].filter((part) => part !== '').join(' ') }
}

/** Whether a text holds a private key, which is to stay where it is: of OpenSSH, PEM or PuTTY. Pure. */
export function holdsPrivateKey(text: string): boolean {
  return /^\s*(?:-----BEGIN [A-Z0-9 ]*PRIVATE KEY|PuTTY-User-Key-File)/m.test(text)
}

export const SshKeyCreate = named(
  'SshKeyCreate',
  Type.Object(
    {
      id: Type.Optional(SshKeyId),
      metadata: Type.Optional(MetadataInput),
      spec: Type.Object({ public_key: PublicKey }, strict),
    },
    strict,
  ),
)
export type SshKeyCreate = Static<typeof SshKeyCreate>

export const SshKey = named(
  'SshKey',
  Type.Object(
    {
      id: SshKeyId,
      metadata: ref(Metadata),
      spec: Type.Object({ public_key: PublicKey }, strict),
      status: Type.Object({ fingerprint: Type.String({ description: 'SHA256:… as ssh-keygen -l prints it' }) }, strict),
    },
    strict,
  ),
)
export type SshKey = Static<typeof SshKey>

export const SshKeyList = named('SshKeyList', pageOf(SshKey))

export const SshKeyPatch = named('SshKeyPatch', Type.Object({ metadata: Type.Optional(MetadataPatch) }, strict))
export type SshKeyPatch = Static<typeof SshKeyPatch>
