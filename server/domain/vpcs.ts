import { newId } from '@berth/contract/ids.ts'
import { toRfc3339 } from '@berth/contract/units.ts'
import type { Vpc, VpcCreate } from '@berth/contract/vpcs.ts'
import { ApiError, validationError } from '../api-error.ts'
import type { Context } from '../context.ts'
import { deleteVpc as deleteVpcRow, findVpc, getVpc, insertVpc, listVpcs, type StoredVpc } from '../store/vpcs.ts'
import { cidrFault } from './cidr.ts'

/** Make a VPC; any two may have the same CIDR. */
export async function createVpc(ctx: Context, body: VpcCreate): Promise<Vpc> {
  const fault = cidrFault(body.spec.cidr)
  if (fault !== null) throw validationError([{ pointer: '/spec/cidr', message: fault }])
  return ctx.store.write(async (tx) => {
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
  })
}

export async function readVpc(ctx: Context, id: string): Promise<Vpc> {
  return document(await getVpc(ctx.store.read, id))
}

export async function readVpcs(ctx: Context): Promise<Vpc[]> {
  return (await listVpcs(ctx.store.read)).map(document)
}

/** Remove a VPC that has no subnet. */
export async function deleteVpc(ctx: Context, id: string): Promise<void> {
  await ctx.store.write(async (tx) => {
    const vpc = await getVpc(tx.db, id)
    if (vpc.subnets > 0) throw new ApiError('in_use', `VPC ${id} still has ${vpc.subnets} subnets; delete them first.`)
    await deleteVpcRow(tx, id)
  })
}

function document(vpc: StoredVpc): Vpc {
  return {
    id: vpc.id,
    metadata: { name: vpc.name, labels: vpc.labels, created_at: toRfc3339(vpc.created_at) },
    spec: { cidr: vpc.cidr },
    status: { subnets: vpc.subnets, instances: vpc.instances },
  }
}
