import { newId } from '@berth/contract/ids.ts'
import type { Subnet, SubnetCreate } from '@berth/contract/subnets.ts'
import { toRfc3339 } from '@berth/contract/units.ts'
import { ApiError, validationError } from '../api-error.ts'
import type { Context } from '../context.ts'
import { countInstancesOfSubnet } from '../store/instances.ts'
import {
  deleteSubnet as deleteSubnetRow,
  findSubnet,
  getSubnet,
  insertSubnet,
  listSubnets,
  type StoredSubnet,
} from '../store/subnets.ts'
import { findVpc } from '../store/vpcs.ts'
import { cidrFault, contains, firstOffset, gatewayOf, overlap, usableAddresses } from './cidr.ts'

/** Make a subnet inside its VPC that overlaps no other of it. */
export async function createSubnet(ctx: Context, body: SubnetCreate): Promise<Subnet> {
  const { vpc_id: vpcId, cidr } = body.spec
  const fault = cidrFault(cidr)
  if (fault !== null) throw validationError([{ pointer: '/spec/cidr', message: fault }])
  return ctx.store.write(async (tx) => {
    const vpc = await findVpc(tx.db, vpcId)
    if (vpc === null) throw validationError([{ pointer: '/spec/vpc_id', message: `there is no VPC ${vpcId}` }])
    if (!contains(vpc.cidr, cidr)) {
      throw validationError([{ pointer: '/spec/cidr', message: `must lie inside the VPC's ${vpc.cidr}` }])
    }
    const clash = (await listSubnets(tx.db, vpcId)).find((other) => overlap(other.cidr, cidr))
    if (clash !== undefined) {
      const message = `overlaps subnet ${clash.id} (${clash.cidr})`
      throw validationError([{ pointer: '/spec/cidr', message }])
    }
    const id = body.id ?? newId('subnet', ctx.now())
    if ((await findSubnet(tx.db, id)) !== null) throw new ApiError('already_exists', `There is a subnet ${id} already.`)
    await insertSubnet(tx, {
      id,
      name: body.metadata?.name ?? id,
      labels: body.metadata?.labels ?? {},
      created_at: ctx.now(),
      vpc_id: vpcId,
      cidr,
      next_offset: firstOffset,
    })
    return document(await getSubnet(tx.db, id))
  })
}

export async function readSubnet(ctx: Context, id: string): Promise<Subnet> {
  return document(await getSubnet(ctx.store.read, id))
}

export async function readSubnets(ctx: Context): Promise<Subnet[]> {
  return (await listSubnets(ctx.store.read)).map(document)
}

/** Remove a subnet that no instance, not even a tombstone, refers to. */
export async function deleteSubnet(ctx: Context, id: string): Promise<void> {
  await ctx.store.write(async (tx) => {
    await getSubnet(tx.db, id)
    const users = await countInstancesOfSubnet(tx.db, id)
    if (users > 0) {
      throw new ApiError(
        'in_use',
        `Subnet ${id} is used by ${users} instances (terminated ones count until they expire).`,
      )
    }
    await deleteSubnetRow(tx, id)
  })
}

function document(subnet: StoredSubnet): Subnet {
  return {
    id: subnet.id,
    metadata: { name: subnet.name, labels: subnet.labels, created_at: toRfc3339(subnet.created_at) },
    spec: { vpc_id: subnet.vpc_id, cidr: subnet.cidr },
    status: { gateway: gatewayOf(subnet.cidr), available_addresses: usableAddresses(subnet.cidr) - subnet.used },
  }
}
