import type { InstanceCreated } from '@berth/contract/instances/instances.ts'
import type { SshKey } from '@berth/contract/instances/ssh-keys.ts'
import type { Subnet } from '@berth/contract/networks/subnets.ts'
import type { Vpc } from '@berth/contract/networks/vpcs.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Stack, startStack, testPublicKey } from '../stack.ts'
import { expectInvalid } from './expect-invalid.ts'

let stack: Stack
beforeAll(async () => {
  stack = await startStack({ agent: false, publicPools: [{ name: 'default', cidr: '203.0.113.0/24' }] })
  await stack.ensureExamples()
})
afterAll(() => stack.close())

const [keyType = '', keyBlob = ''] = testPublicKey.split(' ')
const blobBytes = Buffer.from(keyBlob, 'base64')

describe('SSH keys', () => {
  const bad: [string, unknown][] = [
    [
      'a private key',
      '-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n',
    ],
    ['a PEM public key', '-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----'],
    ['garbage', 'not a key'],
    ['nothing', ''],
    ['only spaces', '   '],
    ['only a type', keyType],
    ['only a blob', keyBlob],
    ['a type that does not match the blob', `ssh-rsa ${keyBlob}`],
    ['an unknown type', `ssh-foo ${keyBlob}`],
    ['DSA', 'ssh-dss AAAAB3NzaC1kc3MAAACBAP1/U4EddRIpUt9KnC7s5Of2EbdSPO9EAMMeP4C2USZpRV1AIlH7WT2NWPq'],
    ['a blob that is not base64', `${keyType} ${keyBlob.slice(0, -1)}!`],
    ['an empty blob', `${keyType} `],
    ['a blob cut short', `${keyType} ${blobBytes.subarray(0, 40).toString('base64')}`],
    [
      'a blob with bytes behind the key',
      `${keyType} ${Buffer.concat([blobBytes, Buffer.alloc(9)]).toString('base64')}`,
    ],
    ['options before the type', `command="rm -rf /" ${testPublicKey}`],
    ['a second line', `${testPublicKey}\nssh-ed25519 AAAA second`],
    ['a line break in the comment', `${testPublicKey}\rx`],
    // YAML 1.1, which cloud-init reads, ends a line there
    ['a line separator in the comment', `${testPublicKey}\u2028x`],
    ['a zero byte', `${testPublicKey}\0`],
    ['an escape sequence', `${testPublicKey}\u001b[2J`],
    ['a certificate', testPublicKey.replace('ssh-ed25519', 'ssh-ed25519-cert-v01@openssh.com')],
    ['4 KiB of comment', `${testPublicKey} ${'x'.repeat(4096)}`],
    ['a number', 1],
    ['null', null],
  ]
  test.each(bad)('%s is refused', async (_name, key) => {
    await expectInvalid(stack, '/v1/ssh-keys', { spec: { public_key: key } }, ['/spec/public_key'])
  })

  test('ids are of the right kind and taken once', async () => {
    for (const id of ['vpc-1', 'key-', 'key-A', 'key-a_b', 'key--', `key-${'a'.repeat(60)}`, 'key-../x', 7]) {
      await expectInvalid(stack, '/v1/ssh-keys', { id, spec: { public_key: testPublicKey } }, ['/id'])
    }
    const twice = await stack.api('POST', '/v1/ssh-keys', { id: 'key-001', spec: { public_key: testPublicKey } })
    expect({ status: twice.status, code: twice.body.code }).toEqual({ status: 409, code: 'already_exists' })
  })

  test('spaces, tabs and a line break around and between the parts of a key are one space', async () => {
    const body = { spec: { public_key: `  ${testPublicKey.replace(' ', '\t ')}\r\n` } }
    const { status, body: key } = await stack.api<SshKey>('POST', '/v1/ssh-keys', body)
    expect(status).toBe(201)
    expect(key.spec.public_key).toBe(testPublicKey)
    expect(key.status.fingerprint).toMatch(/^SHA256:[A-Za-z0-9+/]{43}$/)
    expect((await stack.api('DELETE', `/v1/ssh-keys/${key.id}`)).status).toBe(204)
    expect((await stack.api('DELETE', `/v1/ssh-keys/${key.id}`)).status).toBe(404)
  })

  test('one that a live instance was made with cannot be deleted, one that only a terminated has can', async () => {
    await stack.api('POST', '/v1/ssh-keys', { id: 'key-used', spec: { public_key: testPublicKey } })
    const { id } = await stack.create({ ssh_key_ids: ['key-used'] })
    const used = await stack.api('DELETE', '/v1/ssh-keys/key-used')
    expect({ status: used.status, code: used.body.code }).toEqual({ status: 409, code: 'in_use' })
    expect(used.body.detail).toContain(id)
    await stack.delete(id)
    expect((await stack.api('DELETE', '/v1/ssh-keys/key-used')).status).toBe(204)
    expect((await stack.get(id)).spec.ssh_key_ids).toEqual(['key-used'])
  })

  test('bytes that are no UTF-8 are not stored as something else', async () => {
    const [before, after] = JSON.stringify({ id: 'key-latin1', spec: { public_key: `${testPublicKey}#` } }).split('#')
    const body = Buffer.concat([Buffer.from(before ?? ''), Buffer.from([0xe9]), Buffer.from(after ?? '')])
    const { status, body: problem } = await stack.api('POST', '/v1/ssh-keys', body)
    expect({ status, code: problem.code }).toEqual({ status: 400, code: 'invalid_json' })
  })
})

const badCidrs: [string, unknown][] = [
  ['bits behind the prefix', '10.0.0.1/16'],
  ['a public range', '8.8.0.0/16'],
  ['a range just behind a private one', '172.32.0.0/16'],
  ['link-local', '169.254.0.0/16'],
  ['loopback', '127.0.0.0/16'],
  ['carrier-grade NAT', '100.64.0.0/16'],
  ['multicast', '224.0.0.0/16'],
  ['everything', '0.0.0.0/0'],
  ['/8', '10.0.0.0/8'],
  ['/15', '10.0.0.0/15'],
  ['/29', '10.0.0.0/29'],
  ['/30', '10.0.0.0/30'],
  ['/32', '10.0.0.0/32'],
  ['/33', '10.0.0.0/33'],
  ['a negative prefix', '10.0.0.0/-1'],
  ['no prefix', '10.0.0.0'],
  ['an empty prefix', '10.0.0.0/'],
  ['three parts', '10.0.0/16'],
  ['256', '10.256.0.0/16'],
  ['leading zeros', '010.0.0.0/16'],
  ['leading zeros inside', '10.00.0.0/16'],
  ['hexadecimal', '0x0a.0.0.0/16'],
  ['a space', ' 10.0.0.0/16'],
  ['a line break', '10.0.0.0/16\n'],
  ['IPv6', 'fd00::/48'],
  ['IPv6 in disguise', '::ffff:10.0.0.0/112'],
  ['nothing', ''],
  ['a number', 10],
  ['null', null],
]

describe('VPCs', () => {
  test.each(badCidrs)('a CIDR with %s is refused', async (_name, cidr) => {
    await expectInvalid(stack, '/v1/vpcs', { spec: { cidr } }, ['/spec/cidr'])
  })

  test('the largest and the smallest of each private range are taken', async () => {
    for (const cidr of ['10.0.0.0/16', '10.255.255.240/28', '172.31.0.0/16', '192.168.0.0/16', '192.168.255.240/28']) {
      const { status, body } = await stack.api<Vpc>('POST', '/v1/vpcs', { spec: { cidr } })
      expect({ cidr, status }).toEqual({ cidr, status: 201 })
      expect(body.status).toEqual({ subnets: 0, instances: 0 })
      expect((await stack.api('DELETE', `/v1/vpcs/${body.id}`)).status).toBe(204)
    }
  })

  test('an id is taken once and stays while a subnet is in it', async () => {
    const twice = await stack.api('POST', '/v1/vpcs', { id: 'vpc-abc123', spec: { cidr: '10.9.0.0/16' } })
    expect({ status: twice.status, code: twice.body.code }).toEqual({ status: 409, code: 'already_exists' })
    const used = await stack.api('DELETE', '/v1/vpcs/vpc-abc123')
    expect({ status: used.status, code: used.body.code }).toEqual({ status: 409, code: 'in_use' })
  })
})

describe('subnets', () => {
  test.each(badCidrs)('a CIDR with %s is refused', async (_name, cidr) => {
    await expectInvalid(stack, '/v1/subnets', { spec: { vpc_id: 'vpc-abc123', cidr } }, ['/spec/cidr'])
  })

  test.each([
    ['outside its VPC', '10.1.0.0/24'],
    ['in another private range', '192.168.0.0/24'],
    ['the same as another', '10.0.1.0/24'],
    ['inside another', '10.0.1.128/25'],
    ['around another', '10.0.0.0/23'],
    ['as large as the VPC, with another in it', '10.0.0.0/16'],
  ])('one that is %s is refused', async (_name, cidr) => {
    await expectInvalid(stack, '/v1/subnets', { spec: { vpc_id: 'vpc-abc123', cidr } }, ['/spec/cidr'])
  })

  test('one of a VPC that does not exist, or of none, is refused', async () => {
    await expectInvalid(stack, '/v1/subnets', { spec: { vpc_id: 'vpc-none', cidr: '10.0.2.0/24' } }, ['/spec/vpc_id'])
    await expectInvalid(stack, '/v1/subnets', { spec: { cidr: '10.0.2.0/24' } }, ['/spec/vpc_id'])
  })

  test('of two that overlap and are made at once, one is made', async () => {
    const cidrs = ['10.0.16.0/20', '10.0.16.0/24', '10.0.31.0/24', '10.0.16.0/20']
    const answers = await Promise.all(
      cidrs.map((cidr) => stack.api<Subnet>('POST', '/v1/subnets', { spec: { vpc_id: 'vpc-abc123', cidr } })),
    )
    const made = answers.filter((answer) => answer.status === 201)
    const wide = made.some((answer) => answer.body.spec.cidr === '10.0.16.0/20')
    expect(made).toHaveLength(wide ? 1 : 2)
    expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([201, 422]))
  })

  test('the smallest has 11 addresses and refuses a twelfth instance', async () => {
    const spec = { vpc_id: 'vpc-abc123', cidr: '10.0.2.0/28' }
    const { body } = await stack.api<Subnet>('POST', '/v1/subnets', { id: 'subnet-tiny', spec })
    expect(body.status).toEqual({ gateway: '10.0.2.1', available_addresses: 11 })
    const create = { spec: { type: 'micro', image: 'micro', subnet_id: 'subnet-tiny' } }
    const answers = await Promise.all(
      Array.from({ length: 14 }, () => stack.api<InstanceCreated>('POST', '/v1/instances', create)),
    )
    expect(answers.filter((answer) => answer.status === 201)).toHaveLength(11)
    const refused = await stack.api('POST', '/v1/instances', create)
    expect({ status: refused.status, code: refused.body.code }).toEqual({ status: 422, code: 'no_addresses' })
    const used = await stack.api('DELETE', '/v1/subnets/subnet-tiny')
    expect({ status: used.status, code: used.body.code }).toEqual({ status: 409, code: 'in_use' })
    expect(await stack.list()).toHaveLength(11)
  })
})

const badInstanceIds = [
  'inst-none',
  'inst-',
  `inst-${'a'.repeat(21)}`,
  'INST-00000000000000000000',
  ' ',
  '*',
  'vpc-abc123',
  '../x',
  'a'.repeat(70_000),
  7,
  null,
  ['inst-00000000000000000000'],
] as const

describe('rules of security groups', () => {
  test.each([
    ['a prefix with a leading zero', '10.0.0.0/08', 'write 10.0.0.0/8'],
    ['a prefix of two zeros', '0.0.0.0/00', 'write 0.0.0.0/0'],
    ['an octet with a leading zero', '010.0.0.0/8', 'write 10.0.0.0/8'],
    ['padded octets', '001.001.001.002/32', 'write 1.1.1.2/32'],
    ['bits behind the prefix', '192.0.2.1/0', 'the network is 0.0.0.0/0'],
    ['no prefix', '192.0.2.1', '192.0.2.1/32'],
    ['hexadecimal', '0x0a.0.0.0/8', 'must be an IPv4 network'],
    ['three parts', '10.0.0/8', 'must be an IPv4 network'],
    ['a line break', '10.0.0.0/8\n', 'must be an IPv4 network'],
    ['IPv6', '::/0', 'must be an IPv4 network'],
  ])('a remote with %s is refused, and what would be right is said', async (_name, cidr, right) => {
    const rule = { direction: 'ingress', protocol: 'tcp', port_from: 22, remote: { cidr }, description: '' }
    await expectInvalid(stack, '/v1/security-groups', { spec: { rules: [rule] } }, ['/spec/rules/0/remote/cidr'])
    const patch = await stack.api('PATCH', '/v1/security-groups/sg-ssh', { spec: { rules: [rule] } })
    expect(patch.body.errors[0]?.message).toContain(right)
  })
})

describe('public addresses', () => {
  test.each(badInstanceIds)('an instance like %j is refused, and nothing is allocated or changed', async (id) => {
    await expectInvalid(stack, '/v1/public-ips', { spec: { instance_id: id } }, ['/spec/instance_id'])
    await stack.api('POST', '/v1/public-ips', { id: 'pip-bad' })
    const before = (await stack.api('GET', '/v1/public-ips/pip-bad')).text
    const body = { metadata: { name: 'changed' }, spec: { instance_id: id } }
    const { status, body: problem } = await stack.api('PATCH', '/v1/public-ips/pip-bad', body)
    expect([status, problem.errors[0]?.pointer]).toEqual([422, '/spec/instance_id'])
    expect((await stack.api('GET', '/v1/public-ips/pip-bad')).text).toBe(before)
  })

  test('an instance that does not exist is refused', async () => {
    const spec = { instance_id: 'inst-00000000000000000000' }
    await expectInvalid(stack, '/v1/public-ips', { spec }, ['/spec/instance_id'])
  })

  test.each(['none', '', 'Default', 'a b', '-a', 'a'.repeat(64), 'default\n', 1, null, ['default']])(
    'a pool like %j is refused',
    async (pool) => {
      await expectInvalid(stack, '/v1/public-ips', { spec: { pool } }, ['/spec/pool'])
    },
  )

  test('ids are of the right kind and taken once', async () => {
    for (const id of ['vpc-1', 'pip-', 'pip-A', 'pip-a_b', 'pip--', `pip-${'a'.repeat(60)}`, 'pip-../x', 7, null]) {
      await expectInvalid(stack, '/v1/public-ips', { id }, ['/id'])
    }
    await stack.api('POST', '/v1/public-ips', { id: 'pip-once' })
    const before = (await stack.api('GET', '/v1/public-ips')).text
    const twice = await stack.api('POST', '/v1/public-ips', { id: 'pip-once' })
    expect({ status: twice.status, code: twice.body.code }).toEqual({ status: 409, code: 'already_exists' })
    expect((await stack.api('GET', '/v1/public-ips')).text).toBe(before)
  })

  test('fields that there are not, such as an address of the own choice, are refused', async () => {
    await expectInvalid(stack, '/v1/public-ips', { spec: { address: '203.0.113.7' } }, ['/spec/address'])
    await expectInvalid(stack, '/v1/public-ips', { status: {} }, ['/status'])
    await expectInvalid(stack, '/v1/public-ips', { metadata: { name: 'A' } }, ['/metadata/name'])
    await stack.api('POST', '/v1/public-ips', { id: 'pip-fields' })
    const { status, body } = await stack.api('PATCH', '/v1/public-ips/pip-fields', { spec: { pool: 'default' } })
    expect([status, body.errors.map(({ pointer }) => pointer)]).toEqual([422, ['/spec/pool']])
  })

  test('filters that are too long or hold a NUL are 400', async () => {
    for (const query of [
      `pool=${'a'.repeat(64)}`,
      `instance_id=${'a'.repeat(64)}`,
      'pool=%00',
      'address=203.0.113.1',
    ]) {
      const { status, body } = await stack.api('GET', `/v1/public-ips?${query}`)
      expect({ query, status, code: body.code }).toEqual({ query, status: 400, code: 'invalid_query' })
    }
  })

  test.each([1, 0, 'true', null, []])('a subnet that shall assign them %j is refused', async (assign) => {
    const spec = { vpc_id: 'vpc-abc123', cidr: '10.0.77.0/24', auto_assign_public_ip: assign }
    await expectInvalid(stack, '/v1/subnets', { spec }, ['/spec/auto_assign_public_ip'])
    const patched = { spec: { auto_assign_public_ip: assign } }
    const { status, body } = await stack.api('PATCH', '/v1/subnets/subnet-def456', patched)
    expect([status, body.errors.map(({ pointer }) => pointer)]).toEqual([422, ['/spec/auto_assign_public_ip']])
  })
})

describe('what is at the edge of the allowed is accepted', () => {
  test('exactly 64 KiB of user data', async () => {
    const userData = Buffer.alloc(65_536, 'x').toString('base64')
    expect((await stack.create({ user_data: userData })).spec.user_data).toBe(userData)
  })

  test('the smallest and the largest size', async () => {
    expect((await stack.create({ vcpus: 1, memory_mb: 64, disk_gb: 1 })).spec.disk_gb).toBe(1)
    const { spec } = await stack.create({ vcpus: 256, memory_mb: 4_194_304, disk_gb: 65_536 })
    expect(spec).toMatchObject({ vcpus: 256, memory_mb: 4_194_304, disk_gb: 65_536 })
  })

  test('a number with a fraction of zero is the integer', async () => {
    const body = '{"spec":{"type":"micro","image":"micro","vcpus":2.0,"memory_mb":1e3}}'
    const answer = await stack.api<InstanceCreated>('POST', '/v1/instances', body)
    expect(answer.body.spec).toMatchObject({ vcpus: 2, memory_mb: 1000 })
  })

  test('names of 1 and 63 characters', async () => {
    for (const name of ['a', '0', 'a'.repeat(63), 'true', 'null', '123']) {
      expect((await stack.create({}, { name })).metadata.name).toBe(name)
    }
  })

  test('64 labels with keys and values of 63 characters, kept as they are', async () => {
    const wide = Object.fromEntries(Array.from({ length: 64 }, (_, i) => [`${i}`.padEnd(63, 'k'), 'v'.repeat(63)]))
    const { id, metadata } = await stack.create({}, { labels: wide })
    expect(metadata.labels).toEqual(wide)
    expect((await stack.get(id)).metadata.labels).toEqual(wide)
  })

  test('labels with names of the prototype are labels like others', async () => {
    const text = '{"__proto__":"a","constructor":"b","toString":"c","a.b/c_d-e":""}'
    const body = `{"metadata":{"labels":${text}},"spec":{"type":"micro","image":"micro"}}`
    const created = await stack.api<InstanceCreated>('POST', '/v1/instances', body)
    expect(created.status, created.text).toBe(201)
    for (const shown of [created, await stack.api('GET', `/v1/instances/${created.body.id}`)]) {
      expect(shown.text).toContain(`"labels":${text}`)
    }
    expect(Object.hasOwn(Object.prototype, 'a')).toBe(false)
  })

  test('a content type with a character set', async () => {
    const body = { spec: { type: 'micro', image: 'micro' } }
    for (const type of ['application/json; charset=utf-8', 'application/json;charset=UTF-8', 'Application/JSON']) {
      expect((await stack.api('POST', '/v1/instances', body, { 'content-type': type })).status, type).toBe(201)
    }
  })

  test('the last of two equal keys counts', async () => {
    const body = '{"spec":{"type":"micro","image":"micro","vcpus":0,"vcpus":3}}'
    expect((await stack.api<InstanceCreated>('POST', '/v1/instances', body)).body.spec.vcpus).toBe(3)
  })
})
