import { newId } from '@berth/contract/ids.ts'
import type { Vpc, VpcCreate, VpcPatch } from '@berth/contract/networks/vpcs.ts'
import { ApiError, inUse, validationError } from '../../api-error.ts'
import type { Context } from '../../context.ts'
import { listSubnetsOfVpcs } from '../../store/networks/subnets.ts'
import {
  type CountedVpc,
  deleteVpc as deleteVpcRow,
  findVpc,
  getVpc,
  insertVpc,
  listVpcs,
} from '../../store/networks/vpcs.ts'
import { type Listed, mapListed, type Page, type ResourceFilter } from '../../store/resource-list.ts'
import type { Transaction } from '../../store/transaction.ts'
import { updateResource } from '../../store/versions.ts'
import { checkIfMatch, entityTag, type Versioned } from '../entity-tag.ts'
import { metadataDocument, patchedMetadata } from '../labels.ts'
import { vpcNetworkFault } from './address-plan.ts'

/** Make a VPC; any two may have the same CIDR. */
export async function createVpc(ctx: Context, tx: Transaction, body: VpcCreate): Promise<Vpc> {
  const fault = vpcNetworkFault(body.spec.cidr)
  if (fault !== null) throw validationError([{ pointer: '/spec/cidr', message: fault }])
  const id = body.id ?? newId('vpc', ctx.now())
  if ((await findVpc(tx.db, id)) !== null) throw new ApiError('already_exists', `There is a VPC ${id} already.`)
  await insertVpc(tx, {
    id,
    name: body.metadata?.name ?? id,
    labels: body.metadata?.labels ?? {},
    created_at: ctx.now(),
    cidr: body.spec.cidr,
    is_default: 0,
  })
  return document(await getVpc(tx.db, id))
}

export async function readVpc(ctx: Context, id: string): Promise<Versioned<Vpc>> {
  return versioned(await getVpc(ctx.store.read, id))
}

export async function readVpcs(ctx: Context, filter: ResourceFilter, page: Page): Promise<Listed<Vpc>> {
  return mapListed(await listVpcs(ctx.store.read, filter, page), document)
}

/** Change a VPC's name and labels. */
export async function patchVpc(
  ctx: Context,
  id: string,
  body: VpcPatch,
  ifMatch: string | undefined,
): Promise<Versioned<Vpc>> {
  return ctx.store.write(async (tx) => {
    const vpc = await getVpc(tx.db, id)
    checkIfMatch(ifMatch, vpc)
    return versioned(await updateResource(tx, 'vpc', vpc, patchedMetadata(vpc, body.metadata)))
  })
}

/** Remove a VPC that has no subnet. */
export async function deleteVpc(ctx: Context, id: string): Promise<void> {
  await ctx.store.writeMakingRoom(async (tx) => {
    await getVpc(tx.db, id)
    const subnets = (await listSubnetsOfVpcs(tx.db, [id])).map((subnet) => subnet.id)
    if (subnets.length > 0) throw inUse(`VPC ${id}`, subnets)
    await deleteVpcRow(tx, id)
  })
}

function versioned(vpc: CountedVpc): Versioned<Vpc> {
  return { document: document(vpc), etag: entityTag(vpc) }
}

function document(vpc: CountedVpc): Vpc {
  return {
    id: vpc.id,
    metadata: metadataDocument(vpc),
    spec: { cidr: vpc.cidr },
    status: { subnets: vpc.subnets, instances: vpc.instances },
  }
}
