import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { standardError } from './standard-error.ts'

test('lines are written whole and in order', () => {
  const directory = mkdtempSync(join(tmpdir(), 'berth-test-'))
  const descriptor = openSync(join(directory, 'log'), 'a')
  const log = standardError(descriptor)
  for (let line = 0; line < 100; line++) log.write(`${line} ${'x'.repeat(1000)}\n`)
  closeSync(descriptor)
  const lines = readFileSync(join(directory, 'log'), 'utf8').trimEnd().split('\n')
  rmSync(directory, { recursive: true })
  expect(lines.map((line) => Number(line.split(' ')[0]))).toEqual(Array.from({ length: 100 }, (_, line) => line))
})

test('lines that cannot be written are lost, and nothing is thrown', () => {
  const descriptor = openSync('/dev/full', 'w') // every write is ENOSPC: full(4)
  const log = standardError(descriptor)
  for (let line = 0; line < 100; line++) log.write('a line\n')
  closeSync(descriptor)
  log.write('nor to a descriptor that is closed\n')
})
