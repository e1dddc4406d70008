import type { Image } from '@berth/contract/images/images.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Stack, startStack } from '../stack.ts'
import { expectInvalid } from './expect-invalid.ts'

let stack: Stack
beforeAll(async () => {
  stack = await startStack({ agent: false, publicPools: [{ name: 'default', cidr: '203.0.113.0/24' }] })
  await stack.ensureExamples()
})
afterAll(() => stack.close())

describe('images', () => {
  const spec = {
    source_url: 'https://images.example/disk.qcow2',
    sha256: 'ab'.repeat(32),
    min_disk_gb: 4,
    default_user: 'admin',
  }
  const bad: [string, string, unknown][] = [
    ['no URL', 'source_url', 'images.example/disk.qcow2'],
    ['a file', 'source_url', 'file:///etc/shadow'],
    ['FTP', 'source_url', 'ftp://images.example/disk.qcow2'],
    ['data', 'source_url', 'data:,disk'],
    ['a URL without a host', 'source_url', 'https://'],
    ['a URL that cannot be parsed', 'source_url', 'https://[images.example/disk'],
    ['a port that is none', 'source_url', 'https://images.example:99999/disk'],
    ['a user and password', 'source_url', 'https://user:secret@images.example/disk.qcow2'],
    ['a user', 'source_url', 'https://user@images.example/disk.qcow2'],
    ['loopback', 'source_url', 'http://127.0.0.1/disk.qcow2'],
    ['another loopback', 'source_url', 'http://127.1.2.3:8080/disk.qcow2'],
    ['loopback as one number', 'source_url', 'http://2130706433/disk.qcow2'],
    ['loopback in hexadecimal', 'source_url', 'http://0x7f.1/disk.qcow2'],
    ['localhost', 'source_url', 'http://localhost/disk.qcow2'],
    ['localhost with a dot', 'source_url', 'http://localhost./disk.qcow2'],
    ['a name below localhost', 'source_url', 'http://disk.LocalHost/disk.qcow2'],
    ['link-local, as the metadata of clouds', 'source_url', 'http://169.254.169.254/latest/meta-data'],
    ['an unspecified address', 'source_url', 'http://0.0.0.0/disk.qcow2'],
    ['multicast', 'source_url', 'http://224.0.0.1/disk.qcow2'],
    ['IPv6 loopback', 'source_url', 'http://[::1]/disk.qcow2'],
    ['IPv6 link-local', 'source_url', 'http://[fe80::1]/disk.qcow2'],
    ['IPv4 loopback in IPv6', 'source_url', 'http://[::ffff:127.0.0.1]/disk.qcow2'],
    ['a space', 'source_url', 'https://images.example/my disk.qcow2'],
    ['a line break', 'source_url', 'https://images.example/disk\n.qcow2'],
    ['a letter beyond ASCII', 'source_url', 'https://images.example/dïsk.qcow2'],
    ['2049 characters', 'source_url', `https://images.example/${'d'.repeat(2026)}`],
    ['nothing', 'source_url', ''],
    ['null', 'source_url', null],
    ['63 digits', 'sha256', 'a'.repeat(63)],
    ['65 digits', 'sha256', 'a'.repeat(65)],
    ['a letter that is no digit', 'sha256', 'g'.repeat(64)],
    ['SHA-512', 'sha256', 'a'.repeat(128)],
    ['nothing', 'sha256', ''],
    ['null', 'sha256', null],
    ['nothing', 'checksum', ''],
    ['one that is not that of sha256', 'checksum', `sha256:${'cd'.repeat(32)}`],
    ['MD5', 'checksum', `md5:${'a'.repeat(32)}`],
    ['a digit too few', 'checksum', `sha512:${'a'.repeat(127)}`],
    ['SHA-256 under the name of SHA-512', 'checksum', `sha512:${'ab'.repeat(32)}`],
    ['lines for other files', 'checksum', `${'a'.repeat(64)}  a\n${'b'.repeat(64)}  b\n`],
    ['4097 characters', 'checksum', ' '.repeat(4097)],
    ['a number', 'checksum', 7],
    ['0', 'min_disk_gb', 0],
    ['a fraction', 'min_disk_gb', 1.5],
    ['more than there is', 'min_disk_gb', 65_537],
    ['text', 'min_disk_gb', '4'],
    ['an empty name', 'default_user', ''],
    ['an option', 'default_user', '-o'],
    ['a path', 'default_user', '../root'],
    ['a capital letter', 'default_user', 'Admin'],
    ['a line break', 'default_user', 'admin\n'],
    ['33 characters', 'default_user', 'a'.repeat(33)],
    ['another network', 'network', 'none'],
    ['another architecture', 'architecture', 'aarch64'],
    ['an empty text', 'title', ''],
    ['201 characters', 'title', 't'.repeat(201)],
    ['an escape sequence', 'title', '\u001b[2J'],
    ['a zero byte', 'title', '\0'],
    ['a line separator', 'title', 'a\u2028b'],
  ]
  test.each(bad)('%s as %s is refused', async (_name, field, value) => {
    await expectInvalid(stack, '/v1/images', { id: 'base', spec: { ...spec, [field]: value } }, [`/spec/${field}`])
  })

  test('what is required cannot be left out, and what is not known cannot be given', async () => {
    for (const field of ['source_url', 'sha256', 'min_disk_gb', 'default_user']) {
      const { [field]: _, ...rest } = spec as Record<string, unknown>
      await expectInvalid(stack, '/v1/images', { id: 'base', spec: rest }, [`/spec/${field}`])
    }
    await expectInvalid(stack, '/v1/images', { spec }, ['/id'])
    await expectInvalid(stack, '/v1/images', { id: 'base' }, ['/spec'])
    for (const field of ['recipe', 'checksum_url', 'registered', 'size_bytes']) {
      await expectInvalid(stack, '/v1/images', { id: 'base', spec: { ...spec, [field]: 'x' } }, [`/spec/${field}`])
    }
    await expectInvalid(stack, '/v1/images', { id: 'base', spec, status: { state: 'available' } }, ['/status'])
  })

  test('ids are names that can also be those of files', async () => {
    for (const id of ['', '.', '..', '../x', 'a/b', '-a', 'a-', 'A', 'a_b', 'a b', 'a\n', 'a'.repeat(64), 7, null]) {
      await expectInvalid(stack, '/v1/images', { id, spec }, ['/id'])
    }
  })

  test('a change can be of name and labels only', async () => {
    await stack.api('POST', '/v1/images', { id: 'base-patched', spec })
    for (const [body, pointer] of [
      [{ spec: { sha256: 'cd'.repeat(32) } }, '/spec'],
      [{ metadata: { name: 'no name' } }, '/metadata/name'],
      [{ metadata: { labels: { 'a b': 'c' } } }, '/metadata/labels/a b'],
      [{ status: {} }, '/status'],
    ] as const) {
      const answer = await stack.api('PATCH', '/v1/images/base-patched', body)
      expect({ body, status: answer.status }).toEqual({ body, status: 422 })
      expect(answer.body.errors.map((error) => error.pointer)).toEqual([pointer])
    }
  })

  test('the longest and the shortest of everything is taken', async () => {
    const longest = {
      id: `${'a'.repeat(61)}.b`,
      spec: {
        ...spec,
        source_url: `http://192.168.0.1:8080/${'d'.repeat(2024)}`,
        min_disk_gb: 65_536,
        default_user: 'u'.repeat(32),
        title: 'ü'.repeat(200),
        network: 'dhcp',
        architecture: 'x86_64',
      },
    }
    for (const body of [longest, { id: 'a', spec: { ...spec, source_url: 'http://x', min_disk_gb: 1 } }]) {
      const { status, body: image, text } = await stack.api<Image>('POST', '/v1/images', body)
      expect({ status, text: status === 201 ? '' : text }).toEqual({ status: 201, text: '' })
      expect(image).toMatchObject(body)
      expect((await stack.api('DELETE', `/v1/images/${image.id}`)).status).toBe(204)
    }
  })
})
