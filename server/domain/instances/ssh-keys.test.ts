import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parsePublicKey } from './ssh-keys.ts'

const installed = spawnSync('sh', ['-c', 'command -v ssh-keygen']).status === 0

describe.skipIf(!installed)('a key that ssh-keygen made', () => {
  test.each([
    ['ed25519', []],
    ['rsa', ['-b', '2048']],
    ['ecdsa', ['-b', '256']],
    ['ecdsa', ['-b', '384']],
    ['ecdsa', ['-b', '521']],
  ] as const)('%s %j is accepted with the fingerprint ssh-keygen prints', (type, options) => {
    const directory = mkdtempSync(join(tmpdir(), 'berth-test-'))
    try {
      const file = join(directory, 'key')
      execFileSync('ssh-keygen', ['-q', '-t', type, ...options, '-N', '', '-C', 'a comment', '-f', file])
      const line = readFileSync(`${file}.pub`, 'utf8').trim()
      const printed = execFileSync('ssh-keygen', ['-l', '-f', `${file}.pub`], { encoding: 'utf8' }).split(' ')[1]
      expect(parsePublicKey(line)).toEqual({ fingerprint: printed })
      // without its comment it is the same key
      expect(parsePublicKey(line.split(' ').slice(0, 2).join(' '))).toEqual({ fingerprint: printed })
      expect(parsePublicKey(readFileSync(file, 'utf8'))).toEqual({ fault: expect.stringContaining('private key') })
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
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
  'ssh-dss AAAAB3NzaC1kc3M=',
  '# a comment',
])('%j is no key', (line) => {
  expect(parsePublicKey(line)).toHaveProperty('fault')
})
