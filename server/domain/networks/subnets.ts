import { newId } from '@berth/contract/ids.ts'
import { contains, overlap } from '@berth/contract/networks/cidr.ts'
import type { Subnet, SubnetCreate, SubnetPatch } from '@berth/contract/networks/subnets.ts'
import { ApiError, inUse, mostUsers, validationError } from '../../api-error.ts'
import type { Context } from '../../context.ts'
import { listInstancesInSubnet } from '../../store/instances/instances.ts'
import {
  type CountedSubnet,
  deleteSubnet as deleteSubnetRow,
  findSubnet,
  getSubnet,
  insertSubnet,
  listSubnets,
  listSubnetsOfVpcs,
} from '../../store/networks/subnets.ts'
import { findVpc } from '../../store/networks/vpcs.ts'
import { type Listed, mapListed, type Page, type ResourceFilter } from '../../store/resource-list.ts'
import type { Transaction } from '../../store/transaction.ts'
import { updateResource } from '../../store/versions.ts'
import { checkIfMatch, entityTag, type Versioned } from '../entity-tag.ts'
import { metadataDocument, patchedMetadata } from '../labels.ts'
import { firstOffset, gatewayOf, usableAddresses, vpcNetworkFault } from './address-plan.ts'

/** Make a subnet inside its VPC that overlaps no other of it. */
export async function createSubnet(ctx: Context, tx: Transaction, body: SubnetCreate): Promise<Subnet> {
  const id = body.id ?? newId('subnet', ctx.now())
  if ((await findSubnet(tx.db, id)) !== null) throw new ApiError('already_exists', `There is a subnet ${id} already.`)
  const { vpc_id: vpcId, cidr } = body.spec
  const fault = vpcNetworkFault(cidr)
  if (fault !== null) throw validationError([{ pointer: '/spec/cidr', message: fault }])
  const vpc = await findVpc(tx.db, vpcId)
  if (vpc === null) throw validationError([{ pointer: '/spec/vpc_id', message: `there is no VPC ${vpcId}` }])
  if (!contains(vpc.cidr, cidr)) {
    throw validationError([{ pointer: '/spec/cidr', message: `must lie inside the VPC's ${vpc.cidr}` }])
  }
  const clash = (await listSubnetsOfVpcs(tx.db, [vpcId])).find((other) => overlap(other.cidr, cidr))
  if (clash !== undefined) {
    const message = `overlaps subnet ${clash.id} (${clash.cidr})`
    throw validationError([{ pointer: '/spec/cidr', message }])
  }
  await insertSubnet(tx, {
    id,
    name: body.metadata?.name ?? id,
    labels: body.metadata?.labels ?? {},
    created_at: ctx.now(),
    vpc_id: vpcId,
    cidr,
    next_offset: firstOffset,
    auto_assign_public_ip: Number(body.spec.auto_assign_public_ip ?? false),
  })
  return document(await getSubnet(tx.db, id))
}

export async function readSubnet(ctx: Context, id: string): Promise<Versioned<Subnet>> {
  return versioned(await getSubnet(ctx.store.read, id))
}

export async function readSubnets(
  ctx: Context,
  filter: ResourceFilter & { vpc_id?: string },
  page: Page,
): Promise<Listed<Subnet>> {
  return mapListed(await listSubnets(ctx.store.read, filter, page), document)
}

/** Change name, labels, and whether instances that are created from now on get a public address. */
export async function patchSubnet(
  ctx: Context,
  id: string,
  body: SubnetPatch,
  ifMatch: string | undefined,
): Promise<Versioned<Subnet>> {
  return ctx.store.write(async (tx) => {
    const subnet = await getSubnet(tx.db, id)
    checkIfMatch(ifMatch, subnet)
    const autoAssign = body.spec?.auto_assign_public_ip
    const values = {
      ...patchedMetadata(subnet, body.metadata),
      ...(autoAssign === undefined ? {} : { auto_assign_public_ip: Number(autoAssign) }),
    }
    return versioned(await updateResource(tx, 'subnet', subnet, values))
  })
}

/** Remove a subnet that no instance stands in. */
export async function deleteSubnet(ctx: Context, id: string): Promise<void> {
  await ctx.store.writeMakingRoom(async (tx) => {
    await getSubnet(tx.db, id)
    const users = await listInstancesInSubnet(tx.db, id, mostUsers + 1)
    if (users.length > 0) throw inUse(`Subnet ${id}`, users)
    await deleteSubnetRow(tx, id)
  })
}

function versioned(subnet: CountedSubnet): Versioned<Subnet> {
  return { document: document(subnet), etag: entityTag(subnet) }
}

function document(subnet: CountedSubnet): Subnet {
  return {
    id: subnet.id,
    metadata: metadataDocument(subnet),
    spec: {
      vpc_id: subnet.vpc_id,
      cidr: subnet.cidr,
      auto_assign_public_ip: subnet.auto_assign_public_ip === 1,
    },
    status: { gateway: gatewayOf(subnet.cidr), available_addresses: usableAddresses(subnet.cidr) - subnet.used },
  }
}
