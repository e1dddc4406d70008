import type { FieldError } from '@berth/contract/errors.ts'
import type { InstanceSpecInput } from '@berth/contract/instances/instances.ts'
import { contains } from '@berth/contract/networks/cidr.ts'
import type { Context } from '../../context.ts'
import {
  findFreedAddress,
  findSubnet,
  insertSubnet,
  listSubnetsOfVpcs,
  type StoredSubnet,
} from '../../store/networks/subnets.ts'
import { findVpc, insertVpc } from '../../store/networks/vpcs.ts'
import type { Transaction } from '../../store/transaction.ts'
import { addressAt, firstOffset } from './address-plan.ts'

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
  if (vpcId === undefined) return defaultSubnetWithRoom(ctx, tx, faults)
  const subnets = await listSubnetsOfVpcs(tx.db, [vpcId])
  if (subnets.length === 0) faults.push({ pointer: '/spec/vpc_id', message: `VPC ${vpcId} has no subnet` })
  return firstWithRoom(tx, subnets)
}

/** The first subnet with room; when none has any, the first, so that it is named as full. Null when there is none. */
async function firstWithRoom(tx: Transaction, subnets: readonly StoredSubnet[]): Promise<StoredSubnet | null> {
  for (const subnet of subnets) if (await hasRoom(tx, subnet)) return subnet
  return subnets[0] ?? null
}

async function hasRoom(tx: Transaction, subnet: StoredSubnet): Promise<boolean> {
  return addressAt(subnet.cidr, subnet.next_offset) !== null || (await findFreedAddress(tx.db, subnet.id)) !== null
}

/**
 * The default subnet, or another one of the default VPC. Both are made on first use, but their ids are a caller's to
 * choose as well: what is there is taken as it is, and the default subnet is made only where it fits.
 */
async function defaultSubnetWithRoom(
  ctx: Context,
  tx: Transaction,
  faults: FieldError[],
): Promise<StoredSubnet | null> {
  const common = { name: 'default', labels: {}, created_at: ctx.now() }
  const vpc = await findVpc(tx.db, defaultVpc.id)
  if (vpc === null) await insertVpc(tx, { ...defaultVpc, ...common, is_default: 1 })
  const existing = await findSubnet(tx.db, defaultSubnet.id)
  if (existing?.vpc_id === defaultVpc.id && (await hasRoom(tx, existing))) return existing
  const others = vpc === null ? [] : await listSubnetsOfVpcs(tx.db, [vpc.id])
  if (others.length > 0) return firstWithRoom(tx, others)
  const cidr = vpc?.cidr ?? defaultVpc.cidr
  if (existing !== null || !contains(cidr, defaultSubnet.cidr)) {
    const why =
      existing === null
        ? `no room for ${defaultSubnet.id} (${defaultSubnet.cidr})`
        : `${existing.id} belongs to ${existing.vpc_id}`
    const message = `the default VPC ${defaultVpc.id} (${cidr}) has no subnet and ${why}; name a subnet`
    faults.push({ pointer: '/spec/subnet_id', message })
    return null
  }
  const subnet = {
    ...defaultSubnet,
    ...common,
    vpc_id: defaultVpc.id,
    next_offset: firstOffset,
    auto_assign_public_ip: Number(ctx.publicPools.length > 0),
  }
  return insertSubnet(tx, subnet)
}
