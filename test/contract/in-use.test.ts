import { describe, expect, test } from 'vitest'
import { type Stack, startStack, testPublicKey, until } from '../stack.ts'

async function make(stack: Stack, plural: string, body: object): Promise<void> {
  const { status, text } = await stack.api('POST', `/v1/${plural}`, body)
  if (status !== 201) throw new Error(text)
}

async function makeNetwork(stack: Stack): Promise<void> {
  await make(stack, 'vpcs', { id: 'vpc-a', spec: { cidr: '10.0.0.0/16' } })
  await make(stack, 'subnets', { id: 'subnet-a', spec: { vpc_id: 'vpc-a', cidr: '10.0.1.0/24' } })
  await make(stack, 'security-groups', { id: 'sg-a' })
  await make(stack, 'ssh-keys', { id: 'key-a', spec: { public_key: testPublicKey } })
}

const used = { subnet_id: 'subnet-a', security_groups: ['sg-a'], ssh_key_ids: ['key-a'] }

const refused = async (stack: Stack, path: string) => {
  const { status, body } = await stack.api('DELETE', `/v1/${path}`)
  return { path, status, code: body.code, detail: body.detail ?? '' }
}

describe('what is in use', () => {
  test('is not deleted, and the answer names who uses it, for every kind', async () => {
    await using stack = await startStack({ agent: false })
    await makeNetwork(stack)
    const { id } = await stack.create(used)
    const rule = { direction: 'ingress', protocol: 'any', remote: { security_group: 'sg-a' }, description: '' }
    await make(stack, 'security-groups', { id: 'sg-b', spec: { rules: [rule] } })
    for (const [path, users] of [
      ['vpcs/vpc-a', ['subnet-a']],
      ['subnets/subnet-a', [id]],
      ['security-groups/sg-a', [id, 'sg-b']],
      ['ssh-keys/key-a', [id]],
    ] as const) {
      const answer = await refused(stack, path)
      expect(answer).toMatchObject({ path, status: 409, code: 'in_use' })
      for (const user of users) expect(answer.detail).toContain(user)
      expect((await stack.api('GET', `/v1/${path}`)).status).toBe(200)
    }
  })

  test('by more than ten names ten and says that there are others', async () => {
    await using stack = await startStack({ agent: false })
    await makeNetwork(stack)
    const ids: string[] = []
    for (let i = 0; i < 12; i++) ids.push((await stack.create(used)).id)
    for (const path of ['subnets/subnet-a', 'security-groups/sg-a', 'ssh-keys/key-a']) {
      const { detail } = await refused(stack, path)
      expect({ path, named: ids.filter((id) => detail.includes(id)) }).toEqual({ path, named: ids.slice(0, 10) })
      expect(detail).toContain('and others')
    }
  })

  test('can be deleted at once when the last user is gone, and the tombstone stays readable', async () => {
    await using stack = await startStack()
    await makeNetwork(stack)
    const { id } = await stack.createReady(used)
    const release = stack.hold('start')
    const other = await stack.create(used)
    await stack.ended(await stack.delete(id))
    expect((await refused(stack, 'subnets/subnet-a')).detail).toContain(other.id)
    release()
    await stack.ended(await stack.delete(other.id))
    const tombstone = await stack.get(id)
    for (const path of ['ssh-keys/key-a', 'security-groups/sg-a', 'subnets/subnet-a', 'vpcs/vpc-a']) {
      expect({ path, status: (await stack.api('DELETE', `/v1/${path}`)).status }).toEqual({ path, status: 204 })
      expect((await stack.api('GET', `/v1/${path}`)).status).toBe(404)
    }
    expect(await stack.get(id)).toEqual(tombstone)
    expect(tombstone.spec).toMatchObject(used)
    expect((await stack.list('?state=terminated&subnet_id=subnet-a')).map((instance) => instance.id)).toEqual([
      id,
      other.id,
    ])
    // the ids can be taken anew, and do not belong to the dead
    await makeNetwork(stack)
    expect((await stack.api('GET', '/v1/security-groups/sg-a')).body).toMatchObject({ status: { instances: 0 } })
    expect((await stack.api('DELETE', '/v1/security-groups/sg-a')).status).toBe(204)
  })

  test('an instance that is made while its network is deleted has a network, or is refused', async () => {
    await using stack = await startStack({ agent: false })
    for (let round = 0; round < 10; round++) {
      await makeNetwork(stack)
      const body = { spec: { type: 'micro', image: 'micro', ...used } }
      const [created, deleted] = await Promise.all([
        stack.api<{ id: string }>('POST', '/v1/instances', body),
        stack.api('DELETE', '/v1/subnets/subnet-a'),
      ])
      expect([
        [201, 409],
        [422, 204],
      ]).toContainEqual([created.status, deleted.status])
      if (created.status === 201) await stack.delete(created.body.id)
      for (const path of ['subnets/subnet-a', 'vpcs/vpc-a', 'security-groups/sg-a', 'ssh-keys/key-a']) {
        await until(
          () => stack.api('DELETE', `/v1/${path}`),
          ({ status }) => status === 204 || status === 404,
        )
      }
    }
  })
})

describe('ids that a caller chooses', () => {
  test('are taken once, whatever the body says the second time', async () => {
    await using stack = await startStack({ agent: false })
    await makeNetwork(stack)
    for (const [plural, body] of [
      ['vpcs', { id: 'vpc-a', spec: { cidr: '10.0.0.0/16' } }],
      ['vpcs', { id: 'vpc-a', spec: { cidr: '10.9.0.0/16' } }],
      ['subnets', { id: 'subnet-a', spec: { vpc_id: 'vpc-a', cidr: '10.0.1.0/24' } }],
      ['subnets', { id: 'subnet-a', spec: { vpc_id: 'vpc-a', cidr: '10.0.2.0/24' } }],
      ['security-groups', { id: 'sg-a' }],
      ['ssh-keys', { id: 'key-a', spec: { public_key: testPublicKey } }],
    ] as const) {
      const { status, body: problem } = await stack.api('POST', `/v1/${plural}`, body)
      expect({ plural, body, status, code: problem.code }).toEqual({
        plural,
        body,
        status: 409,
        code: 'already_exists',
      })
    }
  })

  test('twice at the same moment make one', async () => {
    await using stack = await startStack({ agent: false })
    const body = { id: 'vpc-a', spec: { cidr: '10.0.0.0/16' } }
    const answers = await Promise.all(Array.from({ length: 5 }, () => stack.api('POST', '/v1/vpcs', body)))
    expect(answers.map((answer) => answer.status).sort()).toEqual([201, 409, 409, 409, 409])
  })

  test('of the default network may be chosen too: instances then go there', async () => {
    await using stack = await startStack({ agent: false })
    await make(stack, 'vpcs', { id: 'vpc-default', spec: { cidr: '192.168.0.0/16' } })
    await make(stack, 'subnets', { id: 'subnet-mine', spec: { vpc_id: 'vpc-default', cidr: '192.168.7.0/24' } })
    const { spec } = await stack.create()
    expect(spec).toMatchObject({ vpc_id: 'vpc-default', subnet_id: 'subnet-mine' })
  })

  test('a default VPC that has no room for the default subnet is a fault that says so, never an overlap', async () => {
    await using stack = await startStack({ agent: false })
    await make(stack, 'vpcs', { id: 'vpc-default', spec: { cidr: '192.168.0.0/16' } })
    const body = { spec: { type: 'micro', image: 'micro' } }
    const answer = await stack.api('POST', '/v1/instances', body)
    expect(answer).toMatchObject({ status: 422, body: { errors: [{ pointer: '/spec/subnet_id' }] } })
    expect(answer.body.detail).toContain('vpc-default')
    expect((await stack.api('GET', '/v1/subnets')).body).toEqual({ items: [] })
    await make(stack, 'vpcs', { id: 'vpc-a', spec: { cidr: '10.0.0.0/16' } })
    await make(stack, 'subnets', { id: 'subnet-default', spec: { vpc_id: 'vpc-a', cidr: '10.0.1.0/24' } })
    expect((await stack.api('POST', '/v1/instances', body)).body.detail).toContain('subnet-default belongs to vpc-a')
  })

  test('a default VPC whose subnets are full says which is full', async () => {
    await using stack = await startStack({ agent: false })
    await make(stack, 'vpcs', { id: 'vpc-default', spec: { cidr: '10.64.0.0/16' } })
    for (const [id, cidr] of [
      ['subnet-a', '10.64.0.0/28'],
      ['subnet-b', '10.64.1.0/28'],
    ] as const) {
      await make(stack, 'subnets', { id, spec: { vpc_id: 'vpc-default', cidr } })
    }
    const subnets: string[] = []
    for (let i = 0; i < 22; i++) subnets.push((await stack.create()).spec.subnet_id)
    expect(subnets).toEqual([...Array(11).fill('subnet-a'), ...Array(11).fill('subnet-b')])
    const answer = await stack.api('POST', '/v1/instances', { spec: { type: 'micro', image: 'micro' } })
    expect(answer).toMatchObject({ status: 422, body: { code: 'no_addresses' } })
    expect(answer.body.detail).toContain('subnet-a')
  })
})
