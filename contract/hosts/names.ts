import { createHash } from 'node:crypto'
import { base32 } from '../ids.ts'

/**
 * Every name Berth gives to an object of a host's kernel or file system is made here from the installation id and a
 * resource id, so two installations can share a machine and any name can be traced back to its owner.
 */

/** Pattern of an installation id: 6 characters, made once per data directory. */
export const installationIdPattern = '^[0-9a-hjkmnp-tv-z]{6}$'

/** Name of the network namespace of a VPC: `berth-<installation>-<12 characters>`. */
export function vpcNamespaceName(installation: string, vpcId: string): string {
  return `${namespacePrefix(installation)}${digest(installation, vpcId)}`
}

/** What the names of all namespaces of an installation start with. */
export function namespacePrefix(installation: string): string {
  return `berth-${installation}-`
}

/** Name of the tap of an instance: 14 characters, within the kernel's 15 (IFNAMSIZ, linux/if.h). */
export function tapName(installation: string, instanceId: string): string {
  return `vt${digest(installation, instanceId)}`
}

/** Name of the host's end of a VPC's uplink: 14 characters. */
export function uplinkName(installation: string, vpcId: string): string {
  return `vu${digest(installation, vpcId)}`
}

/** Name of the nftables table that an installation has in the host's own network namespace. */
export function hostTableName(installation: string): string {
  return `berth_${installation}`
}

/** What stands for a security group in the names of nftables chains and sets: 12 characters; ids are not for that. */
export function groupKey(groupId: string): string {
  return digest('security group', groupId)
}

/** The UUID QEMU is started with for an instance; adoption asks for it over QMP (RFC 9562, version 8). */
export function instanceUuid(installation: string, instanceId: string): string {
  const bytes = createHash('sha256').update(`uuid\0${installation}\0${instanceId}`).digest().subarray(0, 16)
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x80, 6)
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8)
  const hex = bytes.toString('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}

/** VMMs run under uids from here on. */
const firstVmUid = 1_900_000_000
const uidsPerInstallation = 10_000
const installationBlocks = 20_000

/** Instances one installation can have on a host at a time: one uid each. */
export const maxSlots = uidsPerInstallation

/**
 * The uid and gid of the VMM in a slot (0 … maxSlots - 1). Each installation has a block of its own, chosen by its
 * id, so that two of them on one machine hardly ever share a uid; all lie below 2^31 and have no passwd entry.
 */
export function vmUid(installation: string, slot: number): number {
  const block = createHash('sha256').update(`uid\0${installation}`).digest().readUInt32BE(0) % installationBlocks
  return firstVmUid + block * uidsPerInstallation + slot
}

function digest(installation: string, resourceId: string): string {
  const hash = createHash('sha256').update(`${installation}\0${resourceId}`).digest()
  return base32(hash.readBigUInt64BE(0), 12)
}
