import type { FieldError } from '@berth/contract/errors.ts'
import type { InstanceSpecInput } from '@berth/contract/instances.ts'
import type { Context } from '../context.ts'
import type { Transaction } from '../store/store.ts'
import { findFreedAddress, findSubnet, insertSubnet, listSubnetsOfVpcs, type StoredSubnet } from '../store/subnets.ts'
import { findVpc, insertVpc } from '../store/vpcs.ts'
import { addressAt, firstOffset } from './cidr.ts'

/** The network of instances that name none; made on first use. */
const defaultVpc = { id: 'vpc-default', cidr: '10.64.0.0/16' } as const
const defaultSubnet = { id: 'subnet-default', cidr: '10.64.0.0/20' } as const

/**
 * The subnet an instance goes to. A subnet alone implies its VPC, a VPC alone picks its first subnet with room, neither
 * means the default ones. Adds to `faults` and gives null when what is named does not exist or fit together.
 */
export async function resolveNetwork(
  ctx: Context,
  tx: Transaction,
  spec: InstanceSpecInput,
  faults: FieldError[],
): Promise<StoredSubnet | null> {
  const { vpc_id: vpcId, subnet_id: subnetId } = spec
  if (vpcId !== undefined && (await findVpc(tx.db, vpcId)) === null) {
    faults.push({ pointer: '/spec/vpc_id', message: `there is no VPC ${vpcId}` })
    return null
  }
  if (subnetId !== undefined) {
    const subnet = await findSubnet(tx.db, subnetId)
    if (subnet === null) {
      faults.push({ pointer: '/spec/subnet_id', message: `there is no subnet ${subnetId}` })
      return null
    }
    if (vpcId === undefined || subnet.vpc_id === vpcId) return subnet
    const message = `subnet ${subnetId} belongs to ${subnet.vpc_id}, not to ${vpcId}`
    faults.push({ pointer: '/spec/subnet_id', message })
    return null
  }
  if (vpcId === undefined) return ensureDefaultSubnet(ctx, tx)
  const subnets = await listSubnetsOfVpcs(tx.db, [vpcId])
  for (const subnet of subnets) if (await hasRoom(tx, subnet)) return subnet
  const [full] = subnets
  if (full === undefined) faults.push({ pointer: '/spec/vpc_id', message: `VPC ${vpcId} has no subnet` })
  return full ?? null
}

async function hasRoom(tx: Transaction, subnet: StoredSubnet): Promise<boolean> {
  return addressAt(subnet.cidr, subnet.next_offset) !== null || (await findFreedAddress(tx.db, subnet.id)) !== null
}

async function ensureDefaultSubnet(ctx: Context, tx: Transaction): Promise<StoredSubnet> {
  const existing = await findSubnet(tx.db, defaultSubnet.id)
  if (existing !== null) return existing
  const common = { name: 'default', labels: {}, created_at: ctx.now() }
  if ((await findVpc(tx.db, defaultVpc.id)) === null) await insertVpc(tx, { ...defaultVpc, ...common, is_default: 1 })
  const subnet = { ...defaultSubnet, ...common, vpc_id: defaultVpc.id, next_offset: firstOffset }
  await insertSubnet(tx, subnet)
  return { ...subnet, generation: 1 }
}
