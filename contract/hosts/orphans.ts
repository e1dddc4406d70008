import Type, { type Static } from 'typebox'
import { named, oneOf, ref, strict, TimestampOrEmpty } from '../schema.ts'

/** What a host may find left over, by kind. */
export const hostOrphanKinds = [
  'namespace',
  'link',
  'route',
  'neighbour',
  'nft_table',
  'nft_object',
  'connection',
  'process',
  'runtime_file',
  'instance_directory',
  'image_partial',
] as const
export type HostOrphanKind = (typeof hostOrphanKinds)[number]

/** What the server may find left over in its database, by kind. */
export const serverOrphanKinds = [
  'address',
  'public_ip',
  'public_address',
  'reservation',
  'operation',
  'label',
  'security_group_use',
  'ssh_key_use',
  'idempotency_key',
] as const
export type ServerOrphanKind = (typeof serverOrphanKinds)[number]

/** Orphans of one look at a host that are told of; where there are more, more is wrong than a list can say. */
export const mostHostOrphans = 1000

export const Orphan = named(
  'Orphan',
  Type.Object(
    {
      kind: oneOf([...hostOrphanKinds, ...serverOrphanKinds]),
      name: Type.String({ description: 'What the host or the database calls it' }),
      host_id: Type.String({ description: 'Where it is; "" when it is in the database' }),
      detail: Type.String({ description: 'Why nothing explains it' }),
    },
    strict,
  ),
)
export type Orphan = Static<typeof Orphan>

export const OrphanList = named(
  'OrphanList',
  Type.Object(
    {
      items: Type.Array(ref(Orphan)),
      hosts: Type.Array(
        Type.Object(
          {
            host_id: Type.String(),
            looked_at: { ...TimestampOrEmpty, description: 'When this host last looked; "" when it never has' },
          },
          strict,
        ),
        { description: 'How fresh the items of each host are; those of the database are of this moment' },
      ),
    },
    strict,
  ),
)
export type OrphanList = Static<typeof OrphanList>
