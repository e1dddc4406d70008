import { parseAddress } from '@berth/contract/networks/cidr.ts'
import type { NetworkExplanation, NetworkQuestion } from '@berth/contract/networks/explain.ts'
import { policyGroup, type Traffic } from '@berth/contract/networks/policy.ts'
import { validationError } from '../../api-error.ts'
import type { Context } from '../../context.ts'
import { findInstance, type StoredInstance, stateOf } from '../../store/instances/instances.ts'
import { findInstanceByPublicAddress } from '../../store/networks/public-ips.ts'
import { listSecurityGroupsById } from '../../store/networks/security-groups.ts'
import { findInstanceByAddress, listSubnetsOfVpcs } from '../../store/networks/subnets.ts'
import { getVpc } from '../../store/networks/vpcs.ts'
import type { Reader } from '../../store/transaction.ts'
import { gatewayOf } from './address-plan.ts'
import { checkTraffic, type End, type InstanceEnd } from './explained-path.ts'

/** Whether packets that open a connection arrive, which rule lets them or what is missing. Changes nothing. */
export async function explainNetwork(ctx: Context, question: NetworkQuestion): Promise<NetworkExplanation> {
  const db = ctx.store.read
  const traffic = trafficOf(question)
  const [namedFrom, namedTo] = await Promise.all([
    namedInstance(db, question.from, '/from'),
    namedInstance(db, question.to, '/to'),
  ])
  const from = namedFrom ?? (await holder(db, question.from, namedTo))
  const to = namedTo ?? (await holder(db, question.to, from))
  if (from === null && to === null) {
    const message = `neither ${question.from} nor ${question.to} is an instance or an address of one`
    throw validationError([{ pointer: '/from', message }])
  }
  if (from !== null && from.id === to?.id) {
    throw validationError([{ pointer: '/to', message: `is the same instance as from, ${from.id}` }])
  }
  const ends = [await endOf(db, from, question.from), await endOf(db, to, question.to)] as const
  const checks = checkTraffic(...ends, traffic)
  const [fromEnd, toEnd] = ends
  return {
    allowed: checks.at(-1)?.passes === true,
    from: { instance_id: fromEnd.instance?.id ?? '', address: fromEnd.address },
    to: { instance_id: toEnd.instance?.id ?? '', address: toEnd.address },
    checks,
    notes: [from, to].flatMap((instance) => (instance === null ? [] : notesOn(instance))),
  }
}

/** Throws validation_failed when protocol and port do not fit together. */
function trafficOf({ protocol, port }: NetworkQuestion): Traffic {
  if (protocol === 'icmp' && port !== undefined) {
    throw validationError([{ pointer: '/port', message: 'icmp has no ports' }])
  }
  if (protocol !== 'icmp' && port === undefined) {
    throw validationError([{ pointer: '/port', message: `is required for ${protocol}` }])
  }
  return { protocol, port: port ?? null }
}

/** The instance that is named by its id, null for an address. Throws validation_failed for one that is not there. */
async function namedInstance(db: Reader, end: string, pointer: string): Promise<StoredInstance | null> {
  if (isAddress(end)) {
    if (parseAddress(end) !== null) return null
    const message = 'must be the id of an instance, or an IPv4 address of numbers from 0 to 255 without leading zeros'
    throw validationError([{ pointer, message }])
  }
  const instance = await findInstance(db, end)
  if (instance === null || instance.terminated_at !== null) {
    throw validationError([{ pointer, message: `there is no instance ${end}` }])
  }
  return instance
}

/** The instance that has an address: as its private one in the VPC of the other end, or as its public one. */
async function holder(db: Reader, address: string, other: StoredInstance | null): Promise<StoredInstance | null> {
  if (!isAddress(address)) return null
  const inVpc = other === null ? null : await findInstanceByAddress(db, other.vpc_id, address)
  const id = inVpc ?? (await findInstanceByPublicAddress(db, address))
  return id === null ? null : findInstance(db, id)
}

async function endOf(db: Reader, instance: StoredInstance | null, named: string): Promise<End> {
  if (instance === null) return { instance: null, address: named }
  return { instance: await instanceEnd(db, instance), address: isAddress(named) ? named : instance.private_ip }
}

async function instanceEnd(db: Reader, instance: StoredInstance): Promise<InstanceEnd> {
  const vpc = await getVpc(db, instance.vpc_id)
  const subnets = await listSubnetsOfVpcs(db, [vpc.id])
  const groups = await listSecurityGroupsById(db, instance.security_groups)
  return {
    id: instance.id,
    vpc: { id: vpc.id, cidr: vpc.cidr, gateways: subnets.map((subnet) => gatewayOf(subnet.cidr)) },
    privateAddress: instance.private_ip,
    publicAddress: instance.public_ip,
    groups: groups.map(policyGroup),
  }
}

/** What besides rules keeps an instance's packets from passing now. */
function notesOn(instance: StoredInstance): string[] {
  const state = stateOf(instance)
  const network = instance.report?.conditions.NetworkReady
  const behind = instance.report !== null && instance.report.generation < instance.generation
  return [
    ...(state === 'running' ? [] : [`${instance.id} is ${state}: nothing is sent or answered by it.`]),
    ...(network?.status === 'false'
      ? [`The network of ${instance.id} is not as it should be: ${network.message}`]
      : []),
    ...(state === 'running' && behind ? [`A change of ${instance.id} is not in force on its host yet.`] : []),
  ]
}

function isAddress(end: string): boolean {
  return end.includes('.')
}
