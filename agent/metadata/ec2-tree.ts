import { sign } from 'node:crypto'
import type { Guest } from './guest.ts'
import { identityPublicKey, type MetadataKeys } from './keys.ts'

/** A directory of the metadata: its entries are values or directories. */
export interface MetadataTree {
  [name: string]: string | MetadataTree
}

/**
 * Versions of EC2's interface that are served, all alike. Programs look for the newest they know: cloud-init for 2021,
 * 2018 and 2016 in this order, and for 2009 at least (cloudinit/sources/DataSourceEc2.py).
 */
export const ec2Versions = ['2009-04-04', '2016-09-02', '2018-09-24', '2021-03-23', 'latest'] as const

/** Berth has no regions. Programs of EC2 expect one, and take it for a zone without its last letter. */
const placeNames = { region: 'berth-1', zone: 'berth-1a' } as const

/** The tree below `meta-data/`. What an instance has not, a public address for one, is not in it. Pure. */
export function renderMetaData(guest: Guest, hostId: string): MetadataTree {
  const { instance, nic } = guest
  const publicAddress: MetadataTree = nic.public_ip === '' ? {} : { 'public-ipv4': nic.public_ip }
  return {
    'ami-id': instance.image_id,
    hostname: instance.hostname,
    'instance-id': instance.id,
    'instance-type': instance.type,
    'local-hostname': instance.hostname,
    'local-ipv4': nic.ip,
    mac: nic.mac,
    network: { interfaces: { macs: { [nic.mac]: renderInterface(guest) } } },
    placement: { 'availability-zone': placeNames.zone, 'host-id': hostId, region: placeNames.region },
    ...publicAddress,
    ...(instance.ssh_public_keys.length === 0 ? {} : { 'public-keys': renderKeys(instance.ssh_public_keys) }),
    'security-groups': nic.security_groups.join('\n'),
  }
}

function renderInterface({ instance, network, nic }: Guest): MetadataTree {
  const subnet = network.subnets.find(({ id }) => id === instance.subnet_id)
  return {
    'device-number': '0',
    'local-hostname': instance.hostname,
    'local-ipv4s': nic.ip,
    mac: nic.mac,
    ...(nic.public_ip === '' ? {} : { 'public-ipv4s': nic.public_ip }),
    'security-group-ids': nic.security_groups.join('\n'),
    'subnet-id': instance.subnet_id,
    ...(subnet === undefined ? {} : { 'subnet-ipv4-cidr-block': subnet.cidr }),
    'vpc-id': network.vpc_id,
    'vpc-ipv4-cidr-block': network.cidr,
    'vpc-ipv4-cidr-blocks': network.cidr,
  }
}

/** Keys have numbers in EC2's tree, and names in its listing. */
function renderKeys(keys: readonly string[]): MetadataTree {
  return Object.fromEntries(keys.map((key, index) => [String(index), { 'openssh-key': key }]))
}

/**
 * The tree below `dynamic/`: the identity document, as EC2's but for what Berth has not, with an Ed25519 signature over
 * its bytes (base64) and the key that checks it.
 */
export function renderDynamic(guest: Guest, hostId: string, keys: MetadataKeys): MetadataTree {
  const { instance, nic, startedAt } = guest
  const document = JSON.stringify(
    {
      instanceId: instance.id,
      imageId: instance.image_id,
      instanceType: instance.type,
      architecture: guest.image.architecture,
      privateIp: nic.ip,
      region: placeNames.region,
      availabilityZone: placeNames.zone,
      hostId,
      vpcId: instance.vpc_id,
      subnetId: instance.subnet_id,
      pendingTime: startedAt === null ? null : new Date(startedAt).toISOString().replace(/\.\d+Z$/, 'Z'),
      version: '2017-09-30',
    },
    null,
    2,
  )
  const signature = sign(null, Buffer.from(document), keys.identity).toString('base64')
  return { 'instance-identity': { document, 'public-key': identityPublicKey(keys), signature } }
}

/**
 * What is at a path of a tree: a value, or the listing of a directory, one entry a line, directories with a slash. Null
 * when there is nothing.
 */
export function lookUp(tree: MetadataTree, path: readonly string[]): string | null {
  let at: string | MetadataTree = tree
  for (const name of path) {
    if (typeof at === 'string' || !Object.hasOwn(at, name)) return null
    at = at[name] ?? ''
  }
  return typeof at === 'string' ? at : list(at, path.at(-1) === 'public-keys')
}

function list(directory: MetadataTree, areKeys: boolean): string {
  const entries = Object.entries(directory)
  if (areKeys) return entries.map(([number]) => `${number}=key-${number}`).join('\n')
  return entries.map(([name, entry]) => (typeof entry === 'string' ? name : `${name}/`)).join('\n')
}
