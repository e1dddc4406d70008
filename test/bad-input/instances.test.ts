import type { Problem } from '@berth/contract/problem.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Answer, type RequestHeaders, type Stack, startStack } from '../stack.ts'

// Nothing here may store anything, which is asserted after each case, so the cases share one stack.
let stack: Stack
beforeAll(async () => {
  stack = await startStack({ agent: false })
  await stack.ensureExamples()
  await stack.api('POST', '/v1/vpcs', { id: 'vpc-other', spec: { cidr: '10.1.0.0/16' } })
  await stack.api('POST', '/v1/vpcs', { id: 'vpc-bare', spec: { cidr: '10.2.0.0/16' } })
})
afterAll(() => stack.close())

const base = { type: 'micro', image: 'micro' }
const withSpec = (spec: object) => ({ spec: { ...base, ...spec } })
const withMetadata = (metadata: unknown) => ({ metadata, spec: base })

function expectProblem(answer: Answer<Problem>, status: number, code: string): void {
  expect({ status: answer.status, code: answer.body.code }, answer.text).toEqual({ status, code })
  expect(answer.headers['content-type']).toBe('application/problem+json')
  expect(Object.keys(answer.body).sort()).toEqual(
    ['type', 'title', 'status', 'detail', 'code', 'request_id', 'errors'].sort(),
  )
  expect(answer.body.status).toBe(status)
  expect(answer.body.request_id).toBe(answer.headers['x-request-id'])
  expect(answer.text).not.toMatch(/node_modules|\.ts:\d/)
}

/** An instance is not made, nor what would be made on its first use. */
async function expectNothingStored(): Promise<void> {
  expect(await stack.list()).toEqual([])
  expect(await stack.list('?state=terminated')).toEqual([])
  const ids = async (plural: string) =>
    (await stack.api<{ items: { id: string }[] }>('GET', `/v1/${plural}`)).body.items.map((item) => item.id)
  expect(await ids('vpcs')).toEqual(['vpc-abc123', 'vpc-bare', 'vpc-other'])
  expect(await ids('security-groups')).toEqual(['sg-ssh', 'sg-web'])
  expect(await ids('operations')).toEqual([])
}

const key63 = 'k'.repeat(63)
const labels = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, 'v']))

/** Name, body, pointers in any order. */
const invalid: [string, unknown, string[]][] = [
  ['no spec', {}, ['/spec']],
  ['no type', { spec: { image: 'micro' } }, ['/spec/type']],
  ['no image', { spec: { type: 'micro' } }, ['/spec/image']],
  ['neither type nor image', { spec: {} }, ['/spec/type', '/spec/image']],
  ['an unknown type', withSpec({ type: 'cx99' }), ['/spec/type']],
  ['an unknown image', withSpec({ image: 'plan9' }), ['/spec/image']],
  ['an image as a path', withSpec({ image: '../../etc/passwd' }), ['/spec/image']],
  ['a type of the prototype', withSpec({ type: 'constructor' }), ['/spec/type']],
  ['no vCPUs', withSpec({ vcpus: 0 }), ['/spec/vcpus']],
  ['negative vCPUs', withSpec({ vcpus: -1 }), ['/spec/vcpus']],
  ['too many vCPUs', withSpec({ vcpus: 257 }), ['/spec/vcpus']],
  ['half a vCPU', withSpec({ vcpus: 0.5 }), ['/spec/vcpus']],
  ['vCPUs as a string', withSpec({ vcpus: '2' }), ['/spec/vcpus']],
  ['vCPUs as true', withSpec({ vcpus: true }), ['/spec/vcpus']],
  ['vCPUs as null', withSpec({ vcpus: null }), ['/spec/vcpus']],
  ['infinite vCPUs', '{"spec":{"type":"micro","image":"micro","vcpus":1e999}}', ['/spec/vcpus']],
  ['no memory', withSpec({ memory_mb: 0 }), ['/spec/memory_mb']],
  ['negative memory', withSpec({ memory_mb: -4096 }), ['/spec/memory_mb']],
  ['too little memory', withSpec({ memory_mb: 63 }), ['/spec/memory_mb']],
  ['too much memory', withSpec({ memory_mb: 2 ** 53 }), ['/spec/memory_mb']],
  ['fractional memory', withSpec({ memory_mb: 256.5 }), ['/spec/memory_mb']],
  ['memory as a string', withSpec({ memory_mb: '256' }), ['/spec/memory_mb']],
  ['no disk', withSpec({ disk_gb: 0 }), ['/spec/disk_gb']],
  ['a negative disk', withSpec({ disk_gb: -1 }), ['/spec/disk_gb']],
  ['too large a disk', withSpec({ disk_gb: 65_537 }), ['/spec/disk_gb']],
  ['a fractional disk', withSpec({ disk_gb: 1.5 }), ['/spec/disk_gb']],
  ['a disk as a string', withSpec({ disk_gb: '2' }), ['/spec/disk_gb']],
  ['a disk smaller than the image', withSpec({ image: 'ubuntu-22.04', disk_gb: 9 }), ['/spec/disk_gb']],
  ['a type whose disk is smaller than the image', withSpec({ image: 'ubuntu-22.04' }), ['/spec/disk_gb']],
  ['user data that is not base64', withSpec({ user_data: '#!/bin/sh' }), ['/spec/user_data']],
  ['user data without its padding', withSpec({ user_data: 'QQ' }), ['/spec/user_data']],
  ['URL-safe base64', withSpec({ user_data: '-_-_' }), ['/spec/user_data']],
  ['user data with line breaks', withSpec({ user_data: 'QUFB\nQUFB' }), ['/spec/user_data']],
  ['user data as null', withSpec({ user_data: null }), ['/spec/user_data']],
  ['an unknown policy for panics', withSpec({ on_panic: 'reset' }), ['/spec/on_panic']],
  ['no policy for panics', withSpec({ on_panic: null }), ['/spec/on_panic']],
  [
    '64 KiB and a byte of user data',
    withSpec({ user_data: Buffer.alloc(65_537).toString('base64') }),
    ['/spec/user_data'],
  ],
  ['100 KiB of user data', withSpec({ user_data: Buffer.alloc(102_400).toString('base64') }), ['/spec/user_data']],
  ['an unknown field of the spec', withSpec({ vcpu: 2 }), ['/spec/vcpu']],
  ['an unknown field of the metadata', withMetadata({ nme: 'x' }), ['/metadata/nme']],
  ['an unknown field of the body', { ...withSpec({}), sepc: {} }, ['/sepc']],
  ['a field of the answer', { ...withSpec({}), id: 'inst-00000000000000000000' }, ['/id']],
  ['a body that is an array', [], ['']],
  ['a body that is a string', '"spec"', ['']],
  ['a body that is null', 'null', ['']],
  ['a body that is a number', '7', ['']],
  ['a spec that is a number', { spec: 7 }, ['/spec']],
  ['a spec that is an array', { spec: [] }, ['/spec']],
  ['a spec that is null', { spec: null }, ['/spec']],
  ['metadata that is null', withMetadata(null), ['/metadata']],
  ['metadata that is a string', withMetadata('web'), ['/metadata']],
  ['a type that is a number', withSpec({ type: 1 }), ['/spec/type']],
  ['an unknown subnet', withSpec({ subnet_id: 'subnet-none' }), ['/spec/subnet_id']],
  ['an unknown VPC', withSpec({ vpc_id: 'vpc-none' }), ['/spec/vpc_id']],
  ['a subnet of another VPC', withSpec({ vpc_id: 'vpc-other', subnet_id: 'subnet-def456' }), ['/spec/subnet_id']],
  ['a VPC without a subnet', withSpec({ vpc_id: 'vpc-bare' }), ['/spec/vpc_id']],
  ['a subnet id of the wrong kind', withSpec({ subnet_id: 'vpc-abc123' }), ['/spec/subnet_id']],
  ['an unknown key', withSpec({ ssh_key_ids: ['key-001', 'key-none'] }), ['/spec/ssh_key_ids/1']],
  ['two unknown keys', withSpec({ ssh_key_ids: ['key-a', 'key-b'] }), ['/spec/ssh_key_ids/0', '/spec/ssh_key_ids/1']],
  ['a key twice', withSpec({ ssh_key_ids: ['key-001', 'key-001'] }), ['/spec/ssh_key_ids']],
  ['a key that is a number', withSpec({ ssh_key_ids: [1] }), ['/spec/ssh_key_ids/0']],
  ['keys that are a string', withSpec({ ssh_key_ids: 'key-001' }), ['/spec/ssh_key_ids']],
  ['an unknown group', withSpec({ security_groups: ['sg-none'] }), ['/spec/security_groups/0']],
  ['a group twice', withSpec({ security_groups: ['sg-web', 'sg-web'] }), ['/spec/security_groups']],
  [
    '17 groups',
    withSpec({ security_groups: Array.from({ length: 17 }, (_, i) => `sg-${i}`) }),
    ['/spec/security_groups'],
  ],
  [
    'several faults at once',
    withSpec({ type: 'cx99', ssh_key_ids: ['key-none'] }),
    ['/spec/type', '/spec/ssh_key_ids/0'],
  ],
  ['a name in upper case', withMetadata({ name: 'Web' }), ['/metadata/name']],
  ['a name of 64 characters', withMetadata({ name: 'a'.repeat(64) }), ['/metadata/name']],
  ['a name with an underscore', withMetadata({ name: 'web_1' }), ['/metadata/name']],
  ['a name with a dot', withMetadata({ name: 'web.example' }), ['/metadata/name']],
  ['a name that starts with a dash', withMetadata({ name: '-web' }), ['/metadata/name']],
  ['a name that ends with a dash', withMetadata({ name: 'web-' }), ['/metadata/name']],
  ['an empty name', withMetadata({ name: '' }), ['/metadata/name']],
  ['a name with a line break', withMetadata({ name: 'web\n' }), ['/metadata/name']],
  ['a name that is null', withMetadata({ name: null }), ['/metadata/name']],
  ['a name in another script', withMetadata({ name: 'wéb' }), ['/metadata/name']],
  ['65 labels', withMetadata({ labels: labels(65) }), ['/metadata/labels']],
  ['a label with a space in its key', withMetadata({ labels: { 'a b': 'x' } }), ['/metadata/labels/a b']],
  ['a label with a tilde in its key', withMetadata({ labels: { 'a/~b': 'x' } }), ['/metadata/labels/a~1~0b']],
  ['a label without a key', withMetadata({ labels: { '': 'x' } }), ['/metadata/labels/']],
  ['a label key of 64 characters', withMetadata({ labels: { [`${key63}k`]: '' } }), [`/metadata/labels/${key63}k`]],
  ['a label value of 64 characters', withMetadata({ labels: { a: 'v'.repeat(64) } }), ['/metadata/labels/a']],
  ['a label value with a comma', withMetadata({ labels: { a: 'x,y' } }), ['/metadata/labels/a']],
  ['a label value that is a number', withMetadata({ labels: { a: 1 } }), ['/metadata/labels/a']],
  ['a label value that is null', withMetadata({ labels: { a: null } }), ['/metadata/labels/a']],
  ['labels that are an array', withMetadata({ labels: ['a'] }), ['/metadata/labels']],
  ['labels that are null', withMetadata({ labels: null }), ['/metadata/labels']],
  ['__proto__ as a field of the body', '{"__proto__":{"a":1},"spec":{"type":"micro","image":"micro"}}', ['/__proto__']],
  ['__proto__ as a field of the spec', '{"spec":{"type":"micro","image":"micro","__proto__":{}}}', ['/spec/__proto__']],
  [
    '__proto__ instead of a field',
    '{"spec":{"__proto__":{"type":"micro","image":"micro"}}}',
    ['/spec/type', '/spec/image', '/spec/__proto__'],
  ],
  ['constructor as a field', withSpec({ constructor: { prototype: {} } }), ['/spec/constructor']],
  ['hasOwnProperty as a field', { ...withSpec({}), hasOwnProperty: 1 }, ['/hasOwnProperty']],
  [
    'the last of two equal keys is wrong',
    '{"spec":{"type":"micro","image":"micro","vcpus":1,"vcpus":0}}',
    ['/spec/vcpus'],
  ],
]

describe('a create that breaks the schema or names what is not there is 422', () => {
  test.each(invalid)('%s', async (_name, body, pointers) => {
    const answer = await stack.api('POST', '/v1/instances', body)
    expectProblem(answer, 422, 'validation_failed')
    const named = new Set(answer.body.errors.map((error) => error.pointer))
    expect([...named].sort(), answer.text).toEqual([...pointers].sort())
    for (const { message } of answer.body.errors) expect(message).not.toBe('')
    await expectNothingStored()
  })

  test('an unknown field is told the nearest known one', async () => {
    const suggestions = {
      vcpu: 'vcpus',
      memory: 'memory_mb',
      memoryMb: 'memory_mb',
      disk: 'disk_gb',
      ssh_keys: 'ssh_key_ids',
    }
    for (const [given, known] of Object.entries(suggestions)) {
      const { body } = await stack.api('POST', '/v1/instances', withSpec({ [given]: 1 }))
      expect(body.errors).toEqual([{ pointer: `/spec/${given}`, message: expect.stringContaining(known) }])
    }
  })

  test('an answer never repeats a whole body', async () => {
    const { text } = await stack.api('POST', '/v1/instances', withSpec({ ['x'.repeat(500_000)]: 1 }))
    expect(text.length).toBeLessThan(10_000)
    const many = Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`f${i}`, i]))
    const answer = await stack.api('POST', '/v1/instances', withSpec(many))
    expectProblem(answer, 422, 'validation_failed')
    expect(answer.body.errors.length).toBeLessThanOrEqual(100)
  })

  test.each([
    ['fields that are not known', { spec: Object.fromEntries(Array.from({ length: 70_000 }, (_, i) => [`f${i}`, 1])) }],
    ['items of the wrong type', { spec: { ...base, security_groups: new Array(400_000).fill(1) } }],
    ['equal items', { spec: { ...base, ssh_key_ids: new Array(90_000).fill('key-001') } }],
    ['different items', { spec: { ...base, ssh_key_ids: Array.from({ length: 80_000 }, (_, i) => `key-${i}`) } }],
    ['labels', withMetadata({ labels: labels(70_000) })],
  ])('a megabyte of %s does not keep others waiting', async (_name, body) => {
    const before = process.cpuUsage() // the server is in this process
    const answer = await stack.api('POST', '/v1/instances', body)
    expectProblem(answer, 422, 'validation_failed')
    expect(process.cpuUsage(before).user).toBeLessThan(1_500_000)
  })
})

describe('what is not JSON is refused', () => {
  const unparseable: [string, string | Buffer][] = [
    ['broken', '{"spec":}'],
    ['truncated', '{"spec":{"type":"micro","im'],
    ['two documents', '{}{}'],
    ['with a comma at the end', '{"spec":{"type":"micro","image":"micro",}}'],
    ['in single quotes', "{'spec':{}}"],
    ['NaN', '{"spec":{"type":"micro","image":"micro","vcpus":NaN}}'],
    ['YAML', 'spec:\n  type: micro'],
    ['a lone quote', '"'],
    ['a zero byte', '\0'],
    ['UTF-16', Buffer.from(JSON.stringify(withSpec({})), 'utf16le')],
  ]
  test.each(unparseable)('%s', async (_name, body) => {
    expectProblem(await stack.api('POST', '/v1/instances', body), 400, 'invalid_json')
    await expectNothingStored()
  })

  test.each([
    ['arrays', '['.repeat(200_000) + ']'.repeat(200_000)],
    ['objects', `${'{"spec":'.repeat(50_000)}1${'}'.repeat(50_000)}`],
    [
      'labels',
      `{"metadata":{"labels":{"a":${'['.repeat(200_000)}${']'.repeat(200_000)}}},"spec":{"type":"micro","image":"micro"}}`,
    ],
  ])('deeply nested %s are refused and the server lives', async (_name, body) => {
    const answer = await stack.api('POST', '/v1/instances', body)
    expect([400, 422]).toContain(answer.status)
    expect(answer.headers['content-type']).toBe('application/problem+json')
    await expectNothingStored()
  })

  const foreignTypes: [string, RequestHeaders][] = [
    ['text', { 'content-type': 'text/plain' }],
    ['a form', { 'content-type': 'application/x-www-form-urlencoded' }],
    ['a multipart form', { 'content-type': 'multipart/form-data; boundary=x' }],
    ['something like JSON', { 'content-type': 'application/jsonp' }],
    ['a JSON patch', { 'content-type': 'application/json-patch+json' }],
    ['not named', { 'content-type': null }],
    ['empty', { 'content-type': '' }],
    ['nonsense', { 'content-type': ';;;' }],
  ]
  test.each(foreignTypes)('a content type that is %s is 415', async (_name, headers) => {
    for (const path of ['/v1/instances', '/v1/vpcs', '/v1/instances/inst-00000000000000000000/stop']) {
      expectProblem(await stack.api('POST', path, withSpec({}), headers), 415, 'unsupported_media_type')
    }
    await expectNothingStored()
  })

  test('no body at all is a body that lacks everything', async () => {
    for (const headers of [{}, { 'content-type': 'application/json' }]) {
      expectProblem(await stack.api('POST', '/v1/instances', undefined, headers), 422, 'validation_failed')
    }
    await expectNothingStored()
  })

  test('more than a mebibyte is 413, with its length or without', async () => {
    const body = JSON.stringify(withSpec({ user_data: 'A'.repeat(1024 * 1024) }))
    expectProblem(await stack.api('POST', '/v1/instances', body), 413, 'body_too_large')
    const chunked = { 'content-length': null, 'transfer-encoding': 'chunked' }
    expectProblem(await stack.api('POST', '/v1/instances', body, chunked), 413, 'body_too_large')
    await expectNothingStored()
  })
})
