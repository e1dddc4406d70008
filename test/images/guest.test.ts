import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { parseReadyReport } from '@berth/agent/console/ready-marker.ts'
import { guestCondition } from '@berth/agent/instance/guest-condition.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { stringify } from 'yaml'

const flattener = fileURLToPath(new URL('../../images/guest/micro/yaml.awk', import.meta.url))
const readyScript = fileURLToPath(new URL('../../agent/guest/berth-ready', import.meta.url))
const scripts = fileURLToPath(new URL('../../images/guest/', import.meta.url))

let directory = ''
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'berth-guest-'))
})
afterAll(() => rmSync(directory, { recursive: true }))

function flatten(document: unknown): string[] {
  const text = stringify(document, { version: '1.1', lineWidth: 0 })
  return execFileSync('awk', ['-f', flattener], { input: text, encoding: 'utf8' }).trimEnd().split('\n')
}

test.each(
  readdirSync(scripts, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => readFileSync(path, 'utf8').startsWith('#!/bin/sh'))
    .concat(readyScript),
)('%s is a shell script without syntax errors', (path) => {
  execFileSync('sh', ['-n', path])
})

describe('micro reads', () => {
  test('a static network-config', () => {
    const document = {
      version: 2,
      ethernets: {
        nic0: {
          match: { macaddress: '12:34:56:00:00:10' },
          'set-name': 'eth0',
          mtu: 1450,
          addresses: ['10.0.1.5/24'],
          routes: [
            { to: '0.0.0.0/0', via: '10.0.1.1', 'on-link': true },
            { to: '10.9.0.0/16', via: '10.0.1.2' },
          ],
          nameservers: { addresses: ['10.0.1.1', '1.1.1.1'] },
        },
      },
    }
    expect(flatten(document)).toEqual([
      'version=2',
      'ethernets.nic0.match.macaddress=12:34:56:00:00:10',
      'ethernets.nic0.set-name=eth0',
      'ethernets.nic0.mtu=1450',
      'ethernets.nic0.addresses.0=10.0.1.5/24',
      'ethernets.nic0.routes.0.to=0.0.0.0/0',
      'ethernets.nic0.routes.0.via=10.0.1.1',
      'ethernets.nic0.routes.0.on-link=true',
      'ethernets.nic0.routes.1.to=10.9.0.0/16',
      'ethernets.nic0.routes.1.via=10.0.1.2',
      'ethernets.nic0.nameservers.addresses.0=10.0.1.1',
      'ethernets.nic0.nameservers.addresses.1=1.1.1.1',
    ])
  })

  test.each([
    '02:ab:cd:ef:00:01',
    '02:00:00:00:00:10',
    '12:34:56:12:34:56',
    'yes',
    '123',
    'it’s',
    "a'b",
    'a "b" c',
    'a: b # c',
    '\\',
  ])('the value %s however it is quoted', (value) => {
    expect(flatten({ key: value, list: [value] })).toEqual([`key=${value}`, `list.0=${value}`])
  })

  test('keys in meta-data, also with a comment that needs quotes', () => {
    const keys = ['ssh-ed25519 AAAAC3Nza+/= me@host', 'ssh-rsa AAAA== work: laptop #2']
    expect(flatten({ 'instance-id': 'inst-1', 'local-hostname': '007', 'public-keys': keys })).toEqual([
      'instance-id=inst-1',
      'local-hostname=007',
      `public-keys.0=${keys[0]}`,
      `public-keys.1=${keys[1]}`,
    ])
  })

  test('lists in the column of their key, comments and quotes written by hand', () => {
    const text = "#cloud-config\n---\nkeys:\n- one # first\n- \"two\"\n\nother: 'it''s'   \n"
    const flat = execFileSync('awk', ['-f', flattener], { input: text, encoding: 'utf8' })
    expect(flat).toBe("keys.0=one\nkeys.1=two\nother=it's\n")
  })
})

describe('micro’s first boot', () => {
  const firstBoot = join(scripts, 'micro/first-boot')
  let boots = 0

  /** The mark it announces after a boot with this user data, on the files of an earlier one when `root` is that. */
  function boot(userData: string | Buffer, root = join(directory, `boot-${boots++}`)) {
    const seed = join(root, 'run/berth/seed')
    for (const path of [seed, join(root, 'var/log'), join(root, 'usr/lib/berth')]) mkdirSync(path, { recursive: true })
    writeFileSync(join(seed, 'user-data'), userData)
    if (userData.toString().startsWith('#cloud-config')) {
      writeFileSync(join(seed, 'user-data.flat'), execFileSync('awk', ['-f', flattener], { input: userData }))
    }
    // in the place of a serial line and a metadata service
    const ready = join(root, 'usr/lib/berth/berth-ready')
    writeFileSync(ready, `#!/bin/sh\n[ "$1" != announce ] || exec cat "$2"\nexec sh ${readyScript} "$@"\n`, {
      mode: 0o755,
    })
    const json = execFileSync('sh', [firstBoot, root], { encoding: 'utf8' })
    const marker = parseReadyReport(Buffer.from(JSON.stringify({ boot_id: 'b-1', ...JSON.parse(json) })))
    if (marker === null) throw new Error(`it is no marker: ${json}`)
    return { root, condition: guestCondition(marker) }
  }

  test.each([
    ['a script', '#!/bin/sh\necho it ran\n'],
    ['a script with Windows line ends', '#!/bin/sh\r\n[ 1 = 1 ]\r\n'],
    ['an empty script', '#!/bin/sh\n'],
    ['a cloud-config that has only keys', '#cloud-config\nssh_authorized_keys:\n  - ssh-ed25519 AAAA me\n'],
    ['an empty cloud-config', '#cloud-config\n'],
  ])('%s is carried out', (_, userData) => {
    expect(boot(userData).condition).toEqual({ status: 'true', reason: 'user_data_ok', message: '' })
  })

  test.each(['', ' \n\n'])('without user data there is nothing to tell: %j', (userData) => {
    expect(boot(userData).condition).toEqual({ status: 'true', reason: '', message: '' })
  })

  test.each([
    ['ends with 3', '#!/bin/sh\necho no mirror >&2\nexit 3\n', /^user_data failed with exit code 3: no mirror\n$/],
    [
      'is killed',
      '#!/bin/sh\necho before\nkill -9 $$\n',
      /^user_data failed with exit code 137 \(signal 9\): before\n/,
    ],
    ['has no interpreter', '#!/no/such\n', /^user_data failed with exit code 12[67]: .*not found/],
  ])('a script that %s has failed', (_, userData, message) => {
    const { condition } = boot(userData)
    expect(condition).toMatchObject({ status: 'false', reason: 'user_data_failed' })
    expect(condition.message).toMatch(message)
  })

  test.each([
    ['commands in a cloud-config', '#cloud-config\nruncmd: [echo]\n', /begins with #cloud-config\n/],
    ['keys beside what it does not know', '#cloud-config\nssh_authorized_keys: [x]\nruncmd:\n - a\n', /#cloud-config/],
    ['another first line', '---\n#cloud-config\n', /begins with ---\n/],
    ['a byte order mark', '\ufeff#!/bin/sh\n', /begins with \?\?\?#!\/bin\/sh\n/],
    ['base64', Buffer.from('#!/bin/sh\n').toString('base64'), /begins with IyEvYmluL3NoCg==/],
    ['a script behind an empty line', '\n#!/bin/sh\n', /begins with \n/],
    ['gzip', gzipSync('#!/bin/sh\n'), /begins with \?/],
    ['a MIME message', 'MIME-Version: 1.0\n\n', /begins with MIME-Version: 1\.0\n/],
  ])('%s is not understood, and it says what micro does', (_, userData, beginning) => {
    const { condition } = boot(userData)
    expect(condition).toMatchObject({ status: 'false', reason: 'user_data_ignored' })
    expect(condition.message).toMatch(/micro runs #! scripts/)
    expect(condition.message).toMatch(beginning)
  })

  test('the next boot tells the same and runs nothing again', () => {
    const { root, condition } = boot('#!/bin/sh\necho once\nexit 1\n')
    expect(boot('#!/bin/sh\nexit 0\n', root).condition).toEqual(condition)
  })
})

describe('the ready marker', () => {
  function describeOutcome(outcome: string, code: string, output: Uint8Array): string {
    const file = join(directory, 'output')
    writeFileSync(file, output)
    return execFileSync('sh', [readyScript, 'describe', outcome, code, file], { encoding: 'utf8' })
  }

  test('carries any output as valid JSON', () => {
    const text = 'quote " backslash \\ tab\t return\r escape\u001b[1m delete\u007f ä€😀\n'
    expect(JSON.parse(describeOutcome('failed', '3', Buffer.from(text)))).toEqual({
      user_data: 'failed',
      exit_code: 3,
      output_tail: text,
    })
  })

  test.each([
    ['a byte that begins nothing', [0xff], '\ufffd'],
    ['a character cut short', [0x61, 0xe2, 0x82], 'a\ufffd\ufffd'],
    ['an overlong slash', [0xc0, 0xaf], '\ufffd\ufffd'],
    ['half a surrogate pair', [0xed, 0xa0, 0x80], '\ufffd\ufffd\ufffd'],
    ['a zero byte', [0x61, 0, 0x62], 'a\u0000b'],
  ])('replaces %s', (_, bytes, expected) => {
    expect(JSON.parse(describeOutcome('ok', '0', Buffer.from(bytes))).output_tail).toBe(expected)
  })

  test('keeps the end of a long output and no half of a character', () => {
    const tail: string = JSON.parse(describeOutcome('ok', 'null', Buffer.from('€'.repeat(3000)))).output_tail
    expect(tail).toBe('€'.repeat(682))
  })

  test('is a line of its own with the boot’s id in unbroken base64', () => {
    const file = join(directory, 'outcome.json')
    writeFileSync(file, describeOutcome('failed', '1', Buffer.from('x'.repeat(2048))))
    const text = execFileSync('sh', [readyScript, 'line', file], { encoding: 'utf8' })
    const match = /^\nBERTH-READY 1 ([A-Za-z0-9+/]+={0,2})\n$/.exec(text)
    expect(JSON.parse(Buffer.from(match?.[1] ?? '', 'base64').toString('utf8'))).toEqual({
      boot_id: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
      user_data: 'failed',
      exit_code: 1,
      output_tail: 'x'.repeat(2048),
    })
  })
})
