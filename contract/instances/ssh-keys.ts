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
