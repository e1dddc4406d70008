import { execFileSync, spawnSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parsePublicKey } from './public-key.ts'

const installed = spawnSync('sh', ['-c', 'command -v ssh-keygen']).status === 0

let directory = ''
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'berth-test-'))
})
afterAll(() => rmSync(directory, { recursive: true }))

describe.skipIf(!installed)('a key that ssh-keygen made', () => {
  test.each([
    ['ed25519', []],
    ['rsa', ['-b', '2048']],
    ['ecdsa', ['-b', '256']],
    ['ecdsa', ['-b', '384']],
    ['ecdsa', ['-b', '521']],
  ] as const)('%s %j is accepted with the fingerprint ssh-keygen prints', (type, options) => {
    const file = join(directory, `${type}${options.join('')}`)
    execFileSync('ssh-keygen', ['-q', '-t', type, ...options, '-N', '', '-C', 'a comment', '-f', file])
    const line = readFileSync(`${file}.pub`, 'utf8').trim()
    const printed = execFileSync('ssh-keygen', ['-l', '-f', `${file}.pub`], { encoding: 'utf8' }).split(' ')[1]
    expect(parsePublicKey(line)).toEqual({ line, fingerprint: printed })
    const bare = line.split(' ').slice(0, 2).join(' ')
    expect(parsePublicKey(bare)).toEqual({ line: bare, fingerprint: printed })
    expect(parsePublicKey(readFileSync(file, 'utf8'))).toEqual({ fault: expect.stringContaining('private key') })
    // RFC 4716, which PuTTY and other SSH programs write
    const exported = execFileSync('ssh-keygen', ['-e', '-f', `${file}.pub`], { encoding: 'utf8' })
    expect(parsePublicKey(exported)).toEqual({ fault: expect.stringContaining('ssh-keygen -i') })
  })

  test('a certificate is refused, and the message says what to give', () => {
    const ca = join(directory, 'ca')
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', ca])
    execFileSync('ssh-keygen', ['-q', '-s', ca, '-I', 'me', '-n', 'root', `${ca}.pub`])
    const fault = expect.stringMatching(/is a certificate; give the key/)
    expect(parsePublicKey(readFileSync(`${ca}-cert.pub`, 'utf8'))).toEqual({ fault })
  })
})

/** RFC 4251, section 5. */
function string(value: string | Buffer): Buffer {
  const bytes = Buffer.from(value)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}

function mpint(value: bigint): Buffer {
  const hex = value.toString(16)
  const bytes = Buffer.from(hex.padStart(hex.length + (hex.length % 2), '0'), 'hex')
  return string((bytes[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.alloc(1), bytes]) : bytes)
}

function lineOf(type: string, ...fields: Buffer[]): string {
  return `${type} ${Buffer.concat([string(type), ...fields]).toString('base64')}`
}

/** A key of a size: its modulus is no product of two primes, which nobody can see of it. */
function rsa(bits: number, exponent = 65537n, modulus = (1n << BigInt(bits - 1)) + 1n): string {
  return lineOf('ssh-rsa', mpint(exponent), mpint(modulus))
}

const curves = [
  ['P-256', 'nistp256'],
  ['P-384', 'nistp384'],
  ['P-521', 'nistp521'],
] as const

function pointOf(curve: string): Buffer {
  const { x = '', y = '' } = generateKeyPairSync('ec', { namedCurve: curve }).publicKey.export({ format: 'jwk' })
  return Buffer.concat([Buffer.from([4]), Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')])
}

const point = pointOf('P-256')
const offCurve = Buffer.from(point)
offCurve[64] = (offCurve[64] ?? 0) ^ 1

const accepted: [string, string][] = [
  ['RSA of 2048 bits', rsa(2048)],
  ['RSA of 2050 bits', rsa(2050)],
  ['RSA of 4096 bits with exponent 3', rsa(4096, 3n)],
  ['RSA of 16384 bits', rsa(16384)],
  ...curves.map(([curve, name]): [string, string] => [
    `ecdsa ${name}`,
    lineOf(`ecdsa-sha2-${name}`, string(name), string(pointOf(curve))),
  ]),
  ['a security key of ed25519', lineOf('sk-ssh-ed25519@openssh.com', string(Buffer.alloc(32, 7)), string('ssh:'))],
  [
    'a security key of ecdsa',
    lineOf('sk-ecdsa-sha2-nistp256@openssh.com', string('nistp256'), string(point), string('ssh:')),
  ],
]

test.each(accepted)('%s is accepted', (_name, line) => {
  expect(parsePublicKey(line)).toEqual({ line, fingerprint: expect.stringMatching(/^SHA256:[A-Za-z0-9+/]{43}$/) })
})

test.skipIf(!installed)('OpenSSH reads what is accepted, and its fingerprints are the same', () => {
  const file = join(directory, 'accepted.pub')
  writeFileSync(file, accepted.map(([, line]) => `${line}\n`).join(''))
  const printed = execFileSync('ssh-keygen', ['-l', '-f', file], { encoding: 'utf8' }).trim().split('\n')
  const fingerprints = accepted.map(([, line]) => {
    const parsed = parsePublicKey(line)
    return 'fingerprint' in parsed ? parsed.fingerprint : parsed.fault
  })
  expect(printed.map((line) => line.split(' ')[1])).toEqual(fingerprints)
})

const e = mpint(65537n)
const n = mpint((1n << 2047n) + 1n)

test.each([
  ['of 512 bits', rsa(512), /512 bits.*2048/],
  ['of 768 bits', rsa(768), /768 bits.*2048/],
  ['of 1024 bits, which sshd takes by default and systems with a stricter policy do not', rsa(1024), /2048/],
  ['of 2047 bits', rsa(2047), /2047 bits/],
  // libcrypto verifies nothing beyond (OPENSSL_RSA_MAX_MODULUS_BITS)
  ['of 16392 bits', rsa(16392), /16384/],
  ['with exponent 1, for which anyone can sign', rsa(2048, 1n), /exponent/],
  ['with exponent 0', rsa(2048, 0n), /exponent|whole/],
  ['with an even exponent', rsa(2048, 65536n), /exponent/],
  ['with an exponent beyond the modulus', rsa(2048, (1n << 2049n) + 1n), /exponent/],
  // above 3,072 bits libcrypto verifies with none longer than 64 (OPENSSL_RSA_MAX_PUBEXP_BITS)
  ['with an exponent of 65 bits and a modulus of 4096', rsa(4096, (1n << 64n) + 1n), /exponent/],
  ['with an even modulus', rsa(2048, 65537n, 1n << 2047n), /modulus/],
  ['with a negative modulus', lineOf('ssh-rsa', e, string(Buffer.alloc(256, 0xff))), /whole key/],
  ['whose modulus has zeros before it', lineOf('ssh-rsa', e, string(Buffer.alloc(300, 1).fill(0, 0, 20))), /whole key/],
  ['with modulus and exponent in the wrong order', lineOf('ssh-rsa', n, e), /17 bits/],
  ['with a number too many', lineOf('ssh-rsa', e, n, n), /whole key/],
])('RSA %s is refused', (_name, line, fault) => {
  expect(parsePublicKey(line)).toEqual({ fault: expect.stringMatching(fault) })
})

test.each([
  ['of another curve than its type says', lineOf('ecdsa-sha2-nistp256', string('nistp384'), string(pointOf('P-384')))],
  ['with the point of another curve', lineOf('ecdsa-sha2-nistp256', string('nistp256'), string(pointOf('P-384')))],
  ['with a point a byte short', lineOf('ecdsa-sha2-nistp256', string('nistp256'), string(point.subarray(0, -1)))],
  ['with a point off the curve', lineOf('ecdsa-sha2-nistp256', string('nistp256'), string(offCurve))],
  // RFC 5656 allows it, OpenSSH does not
  [
    'with a compressed point',
    lineOf('ecdsa-sha2-nistp256', string('nistp256'), string(Buffer.from([2, ...point.subarray(1, 33)]))),
  ],
  ['of no curve', lineOf('ecdsa-sha2-nistp256', string(''), string(point))],
  [
    'of a security key on another curve',
    lineOf('sk-ecdsa-sha2-nistp256@openssh.com', string('nistp384'), string(pointOf('P-384')), string('ssh:')),
  ],
  [
    'of a security key off the curve',
    lineOf('sk-ecdsa-sha2-nistp256@openssh.com', string('nistp256'), string(offCurve), string('ssh:')),
  ],
  ['of a security key without its application', lineOf('sk-ssh-ed25519@openssh.com', string(Buffer.alloc(32, 7)))],
  [
    'of a security key whose application has a NUL',
    lineOf('sk-ssh-ed25519@openssh.com', string(Buffer.alloc(32, 7)), string('ssh:\0')),
  ],
])('a key %s is refused', (_name, line) => {
  expect(parsePublicKey(line)).toHaveProperty('fault')
})

const ed25519 = Buffer.from('AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f', 'base64')

// sshd takes none of these, so the instance could not be entered
test.each([
  ['a byte short', ed25519.subarray(0, -1)],
  ['cut in the middle', ed25519.subarray(0, 34)],
  ['with bytes behind it', Buffer.concat([ed25519, Buffer.alloc(3)])],
  [
    'that says it is longer than it is',
    Buffer.concat([ed25519.subarray(0, 15), Buffer.from([0, 0, 1, 0]), ed25519.subarray(19)]),
  ],
])('a key %s is refused', (_name, blob) => {
  expect(parsePublicKey(`ssh-ed25519 ${ed25519.toString('base64')}`)).toHaveProperty('fingerprint')
  expect(parsePublicKey(`ssh-ed25519 ${blob.toString('base64')}`)).toHaveProperty('fault')
})

test.each([
  '',
  ' ',
  'ssh-ed25519',
  'ssh-ed25519 ',
  'ssh-ed25519 AAAA',
  'ssh-ed25519 ====',
  '# a comment',
  'SSH-ED25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f',
  'AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f',
  'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f=== x',
])('%j is no key', (line) => {
  expect(parsePublicKey(line)).toHaveProperty('fault')
})

test.each([
  ['DSA', 'ssh-dss AAAAB3NzaC1kc3M=', /DSA/],
  ['an RSA key of SSH version 1', '1024 35 1234567890123 me@laptop', /must start with/],
  ['a signature algorithm, which is no type of key', rsa(2048).replace('ssh-rsa', 'rsa-sha2-256'), /must start with/],
  ['a certificate', 'ecdsa-sha2-nistp256-cert-v01@openssh.com AAAA', /certificate/],
  ['options before the type', `from="10.0.0.0/8",no-pty ${rsa(2048)}`, /options/],
  ['a line of known_hosts', `host.example ${rsa(2048)}`, /must start with/],
  ['a private key behind a line of text', 'key:\n-----BEGIN RSA PRIVATE KEY-----', /private key/],
  ['a private key of PuTTY', 'PuTTY-User-Key-File-3: ssh-ed25519', /private key/],
  [
    'a line that its padding makes too long',
    `${rsa(2058).replace(/=+$/, '')} ${'x'.repeat(4096 - rsa(2058).length)}`,
    /4096/,
  ],
  ['two keys', `${rsa(2048)}\n${rsa(2048)}`, /single line/],
])('%s is refused with words', (_name, line, fault) => {
  expect(parsePublicKey(line)).toEqual({ fault: expect.stringMatching(fault) })
})

const base64 = ed25519.toString('base64')
const canonical = `ssh-ed25519 ${base64} me at home`

test.each([
  ['tabs between its parts', `ssh-ed25519\t${base64}\tme at home`],
  ['several spaces and tabs', `ssh-ed25519 \t  ${base64}  me \t at  home `],
  ['the line end of Windows', `${canonical}\r\n`],
  ['a byte order mark', `\uFEFF${canonical}`],
  ['spaces and a line end around it', `\n  ${canonical}\n\n`],
])('a key with %s is the one line it means', (_name, line) => {
  expect(parsePublicKey(line)).toMatchObject({ line: canonical })
  expect(parsePublicKey(canonical)).toEqual(parsePublicKey(line))
})

test('padding that was left out, which sshd does not read without, is put back', () => {
  const line = rsa(2058)
  expect(line).toMatch(/=$/)
  expect(parsePublicKey(line.replace(/=+$/, ' me'))).toMatchObject({ line: `${line} me` })
})

test('what speaks of a private key in its comment is still a public one', () => {
  expect(parsePublicKey(`ssh-ed25519 ${base64} not the PRIVATE KEY`)).toHaveProperty('fingerprint')
})
