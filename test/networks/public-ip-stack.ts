import type { Instance } from '@berth/contract/instances/instances.ts'
import type { PublicIp, PublicIpCreate } from '@berth/contract/networks/public-ips.ts'
import { type Stack, type StackOptions, startStack, until } from '../stack.ts'

export const publicPools = [
  { name: 'default', cidr: '203.0.113.0/29' },
  { name: 'lab', cidr: '198.51.100.0/31' },
] as const

/** Its subnets: subnet-auto assigns addresses, subnet-plain does not. */
export async function start(options: StackOptions = {}): Promise<Stack> {
  const stack = await startStack({ publicPools, ...options })
  await stack.api('POST', '/v1/vpcs', { id: 'vpc-a', spec: { cidr: '10.0.0.0/16' } })
  for (const [id, cidr, auto] of [
    ['subnet-auto', '10.0.1.0/24', true],
    ['subnet-plain', '10.0.2.0/24', false],
  ] as const) {
    const spec = { vpc_id: 'vpc-a', cidr, auto_assign_public_ip: auto }
    const { status, text } = await stack.api('POST', '/v1/subnets', { id, spec })
    if (status !== 201) throw new Error(text)
  }
  return stack
}

export const auto = { subnet_id: 'subnet-auto' }
export const plain = { subnet_id: 'subnet-plain' }

export async function allocate(stack: Stack, body: PublicIpCreate = {}): Promise<PublicIp> {
  const answer = await stack.api<PublicIp>('POST', '/v1/public-ips', body)
  if (answer.status !== 201) throw new Error(answer.text)
  return answer.body
}

export async function attach(stack: Stack, id: string, instanceId: string): Promise<PublicIp> {
  const body = { spec: { instance_id: instanceId } }
  const answer = await stack.api<PublicIp>('PATCH', `/v1/public-ips/${id}`, body)
  if (answer.status !== 200) throw new Error(answer.text)
  return answer.body
}

export const list = async (stack: Stack, query = '') =>
  (await stack.api<{ items: PublicIp[] }>('GET', `/v1/public-ips${query}`)).body.items

export const addresses = async (stack: Stack) => (await list(stack)).map(({ status }) => status.address)

/** The instance once its host has done what is wanted. */
export const inForce = (stack: Stack, id: string): Promise<Instance> =>
  until(
    () => stack.get(id),
    ({ metadata, status }) => status.observed_generation === metadata.generation,
  )
