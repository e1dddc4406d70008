import type { Instance } from '@berth/contract/instances/instances.ts'
import type { SecurityGroup } from '@berth/contract/networks/security-groups.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Stack, startStack, testPublicKey } from '../stack.ts'

let stack: Stack
beforeAll(async () => {
  stack = await startStack({ agent: false, publicPools: [{ name: 'default', cidr: '203.0.113.0/24' }] })
})
afterAll(() => stack.close())

const rule = { direction: 'ingress', protocol: 'tcp', port_from: 22, remote: { cidr: '10.0.0.0/8' } }
const image = {
  source_url: 'https://images.example/a.qcow2',
  sha256: 'ab'.repeat(32),
  min_disk_gb: 1,
  default_user: 'admin',
}

describe('what has one obvious meaning may be left out, and the document shows that meaning', () => {
  test.each([
    ['security-groups', undefined, { description: '', rules: [] }],
    ['security-groups', {}, { description: '', rules: [] }],
    ['security-groups', { spec: {} }, { description: '', rules: [] }],
    ['security-groups', { spec: { rules: [rule] } }, { description: '', rules: [{ ...rule, description: '' }] }],
    ['public-ips', undefined, { pool: 'default', instance_id: '' }],
    ['public-ips', {}, { pool: 'default', instance_id: '' }],
    ['public-ips', { spec: {} }, { pool: 'default', instance_id: '' }],
    ['ssh-keys', { spec: { public_key: testPublicKey } }, { public_key: testPublicKey }],
    ['vpcs', { id: 'vpc-left-out', spec: { cidr: '10.0.0.0/16' } }, { cidr: '10.0.0.0/16' }],
    [
      'subnets',
      { spec: { vpc_id: 'vpc-left-out', cidr: '10.0.99.0/24' } },
      { vpc_id: 'vpc-left-out', cidr: '10.0.99.0/24', auto_assign_public_ip: false },
    ],
    [
      'images',
      { id: 'left-out', spec: image },
      { title: 'left-out', architecture: 'x86_64', network: 'static', datasource: 'disk', ...image },
    ],
  ])('POST /v1/%s %j', async (plural, body, spec) => {
    const created = await stack.api<SecurityGroup>('POST', `/v1/${plural}`, body)
    expect(created, created.text).toMatchObject({ status: 201, body: { spec } })
    const { id, metadata } = created.body
    expect(metadata).toMatchObject({ name: id, labels: {} })
    const read = await stack.api<SecurityGroup>('GET', `/v1/${plural}/${id}`)
    expect(read.body).toEqual(created.body)
    // a PATCH that names nothing changes nothing
    for (const patch of [{}, { metadata: {} }, { metadata: { labels: {} } }]) {
      expect(await stack.api('PATCH', `/v1/${plural}/${id}`, patch)).toMatchObject({ status: 200, body: read.body })
    }
  })

  test('an instance is a type and an image', async () => {
    const created = await stack.api<Instance>('POST', '/v1/instances', { spec: { type: 'micro', image: 'micro' } })
    expect(created).toMatchObject({
      status: 201,
      body: {
        metadata: { name: created.body.id, labels: {} },
        spec: { vcpus: 1, memory_mb: 256, disk_gb: 2, security_groups: ['sg-default'], ssh_key_ids: [], user_data: '' },
      },
    })
    for (const patch of [{}, { spec: {} }]) {
      expect(await stack.api('PATCH', `/v1/instances/${created.body.id}`, patch)).toMatchObject({ status: 200 })
    }
  })

  test('a rule without description in a PATCH', async () => {
    const { id } = (await stack.api<SecurityGroup>('POST', '/v1/security-groups')).body
    const patched = await stack.api<SecurityGroup>('PATCH', `/v1/security-groups/${id}`, { spec: { rules: [rule] } })
    expect(patched.body.spec.rules).toEqual([{ ...rule, description: '' }])
    // the same as before, with the words in their place: nothing is new
    const again = await stack.api<SecurityGroup>('PATCH', `/v1/security-groups/${id}`, {
      spec: { rules: [{ ...rule, description: '' }] },
    })
    expect(again.body.metadata.generation).toBe(patched.body.metadata.generation)
  })
})

const { protocol: _protocol, ...anyProtocol } = rule
const { remote: _remote, ...anywhere } = rule
const { direction: _direction, ...eitherWay } = rule

describe('what would have to be guessed is asked for', () => {
  test.each([
    // a default would let more through than was meant
    ['security-groups', { spec: { rules: [anyProtocol] } }, '/spec/rules/0/protocol'],
    ['security-groups', { spec: { rules: [anywhere] } }, '/spec/rules/0/remote'],
    ['security-groups', { spec: { rules: [eitherWay] } }, '/spec/rules/0/direction'],
    [
      'security-groups',
      { spec: { rules: [{ ...rule, port_from: undefined, port_to: 22 }] } },
      '/spec/rules/0/port_from',
    ],
    // a plan of addresses is the caller's
    ['vpcs', {}, '/spec'],
    ['vpcs', { spec: {} }, '/spec/cidr'],
    ['subnets', { spec: { cidr: '10.0.98.0/24' } }, '/spec/vpc_id'],
    ['subnets', { spec: { vpc_id: 'vpc-left-out' } }, '/spec/cidr'],
    // not known before the image is there, when it is too late to say that it does not fit or cannot be entered
    ['images', { id: 'a', spec: { ...image, min_disk_gb: undefined } }, '/spec/min_disk_gb'],
    ['images', { id: 'a', spec: { ...image, default_user: undefined } }, '/spec/default_user'],
    ['ssh-keys', { spec: {} }, '/spec/public_key'],
    ['instances', { spec: { image: 'micro' } }, '/spec/type'],
    ['instances', { spec: { type: 'micro' } }, '/spec/image'],
  ])('POST /v1/%s %j is refused at %s', async (plural, body, pointer) => {
    const { status, body: problem } = await stack.api('POST', `/v1/${plural}`, body)
    expect([status, problem.errors.map((error) => error.pointer)]).toEqual([422, [pointer]])
  })

  test.each(['ssh-keys', 'vpcs', 'subnets', 'images', 'instances'])(
    'POST /v1/%s without a body is refused',
    async (plural) => {
      expect(await stack.api('POST', `/v1/${plural}`)).toMatchObject({
        status: 422,
        body: { code: 'validation_failed' },
      })
    },
  )

  test.each(['security-groups', 'public-ips'])('POST /v1/%s with null for a body is refused', async (plural) => {
    expect(await stack.api('POST', `/v1/${plural}`, null)).toMatchObject({ status: 422 })
  })
})
