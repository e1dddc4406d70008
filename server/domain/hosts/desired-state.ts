import type { Desired, DesiredImage, DesiredInstance, DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import { type PolicyGroup, policyGroup } from '@berth/contract/networks/policy.ts'
import type { Context } from '../../context.ts'
import { waitForChange } from '../../feed/waiting.ts'
import { getHost } from '../../store/hosts/hosts.ts'
import { type HostedInstance, listInstancesOfHost } from '../../store/instances/instances.ts'
import { listSshKeysById } from '../../store/instances/ssh-keys.ts'
import { listSecurityGroupsById } from '../../store/networks/security-groups.ts'
import { listSubnetsOfVpcs } from '../../store/networks/subnets.ts'
import { listVpcsById } from '../../store/networks/vpcs.ts'
import type { Reader } from '../../store/transaction.ts'
import { findKnownImage } from '../images/images.ts'
import { findRemovedImages } from '../images/reports.ts'
import { gatewayOf } from '../networks/address-plan.ts'

/** What a host should have, once its revision is another than `since`; null when nothing changed within `holdMs`. */
export async function readDesired(
  ctx: Context,
  hostId: string,
  wait: { since: number; holdMs: number; signal: AbortSignal },
): Promise<Desired | null> {
  const revision = await waitForChange(ctx.store, [hostId], {
    timeoutMs: wait.holdMs,
    signal: wait.signal,
    read: async (db) => (await getHost(db, hostId)).desired_revision,
    done: (current) => current !== wait.since, // lower, too: the database may have been restored
  })
  return revision !== wait.since ? snapshot(ctx, ctx.store.read, hostId, revision) : null
}

/** Reads after the revision was read, so it may be newer than its number says and is then sent once more. */
async function snapshot(ctx: Context, db: Reader, hostId: string, revision: number): Promise<Desired> {
  const instances = await listInstancesOfHost(db, hostId)
  const keys = await listSshKeysById(db, [...new Set(instances.flatMap((instance) => instance.ssh_key_ids))])
  return {
    revision,
    instances: instances.map((instance) => desiredInstance(ctx, instance, (id) => keys.get(id)?.public_key)),
    networks: await desiredNetworks(db, new Set(instances.map((instance) => instance.vpc_id))),
    security_groups: await desiredGroups(db, new Set(instances.flatMap((instance) => instance.security_groups))),
    images: await desiredImages(ctx, db, new Set(instances.map((instance) => instance.image))),
    removed_images: await findRemovedImages(db, (await getHost(db, hostId)).images),
  }
}

function desiredInstance(
  ctx: Context,
  instance: HostedInstance,
  publicKey: (id: string) => string | undefined,
): DesiredInstance {
  return {
    id: instance.id,
    operation_id: instance.operation_id,
    generation: instance.generation,
    power: instance.desired,
    power_since: instance.power_since,
    grace_seconds: instance.grace_seconds,
    reboots: { count: instance.reboots, grace_seconds: instance.reboot_grace_seconds },
    hostname: instance.name,
    type: instance.type,
    image_id: instance.image,
    vcpus: instance.vcpus,
    memory_mb: instance.memory_mb,
    disk_gb: instance.disk_gb,
    vpc_id: instance.vpc_id,
    subnet_id: instance.subnet_id,
    private_ip: instance.private_ip,
    mac: instance.mac,
    security_groups: instance.security_groups,
    public_ip: instance.public_ip,
    // a type that left the catalogue limits nothing: its instances run on
    bandwidth_mbps: ctx.instanceTypes.get(instance.type)?.spec.bandwidth_mbps ?? 0,
    ssh_public_keys: instance.ssh_key_ids.map(publicKey).filter((key) => key !== undefined),
    user_data: instance.user_data,
    on_panic: instance.on_panic,
  }
}

async function desiredNetworks(db: Reader, vpcIds: ReadonlySet<string>): Promise<DesiredNetwork[]> {
  const subnets = await listSubnetsOfVpcs(db, [...vpcIds])
  return (await listVpcsById(db, [...vpcIds])).map((vpc) => ({
    vpc_id: vpc.id,
    cidr: vpc.cidr,
    subnets: subnets
      .filter((subnet) => subnet.vpc_id === vpc.id)
      .map((subnet) => ({ id: subnet.id, cidr: subnet.cidr, gateway: gatewayOf(subnet.cidr) })),
  }))
}

/** The rules of these groups, without their words; a group that a rule names is known by its members alone. */
async function desiredGroups(db: Reader, ids: ReadonlySet<string>): Promise<PolicyGroup[]> {
  return (await listSecurityGroupsById(db, [...ids])).map(policyGroup)
}

async function desiredImages(ctx: Context, db: Reader, ids: ReadonlySet<string>): Promise<DesiredImage[]> {
  const images: DesiredImage[] = []
  for (const id of ids) {
    const image = await findKnownImage(ctx, db, id)
    if (image !== null) images.push(image)
  }
  return images
}
