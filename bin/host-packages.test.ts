import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { ensurePackages } from './host-packages.ts'

const packages = [
  { name: 'berth-test-tool', provides: 'berth-test-tool', reason: 'is only for this test' },
  { name: 'coreutils', provides: 'true', reason: 'is there everywhere' },
]

let folder: string
let path: string | undefined
let said: string[]
const say = (line: string) => said.push(line)

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'berth-packages-'))
  path = process.env.PATH
  process.env.PATH = `${folder}:${path}`
  said = []
})

afterEach(async () => {
  process.env.PATH = path
  await rm(folder, { recursive: true, force: true })
})

/** An apt-get, first in PATH, that notes how it is called and then does `script`. */
async function haveAptGet(script: string): Promise<void> {
  const text = `#!/bin/sh\necho "$DEBIAN_FRONTEND $*" >> "${folder}/calls"\n${script}\n`
  await writeFile(join(folder, 'apt-get'), text, { mode: 0o755 })
}

const installs = () => `case "$*" in *install*) : > "${folder}/berth-test-tool" ;; esac`

test('root has what is missing installed, and only that', async () => {
  await haveAptGet(installs())
  expect(await ensurePackages(packages, { say, isRoot: true })).toEqual([])
  expect(await readFile(join(folder, 'calls'), 'utf8')).toBe(
    'noninteractive -o DPkg::Lock::Timeout=300 update -q\n' +
      'noninteractive -o DPkg::Lock::Timeout=300 install -y --no-install-recommends berth-test-tool\n',
  )
  expect(said.join('\n')).toContain('berth-test-tool          is only for this test')
})

test('with everything there nothing is said and nothing is run', async () => {
  await haveAptGet('exit 1')
  await writeFile(join(folder, 'berth-test-tool'), '')
  expect(await ensurePackages(packages, { say, isRoot: true })).toEqual([])
  expect(said).toEqual([])
  await expect(readFile(join(folder, 'calls'))).rejects.toThrow('ENOENT')
})

test('anyone else is told what root has to run', async () => {
  await haveAptGet(installs())
  expect((await ensurePackages(packages, { say, isRoot: false })).map(({ name }) => name)).toEqual(['berth-test-tool'])
  expect(said.join('\n')).toContain('sudo apt-get install -y --no-install-recommends berth-test-tool')
  await expect(readFile(join(folder, 'calls'))).rejects.toThrow('ENOENT')
})

test('a failure of apt-get, and a package that brings no such program, are said', async () => {
  await haveAptGet('case "$*" in *install*) exit 100 ;; esac')
  await expect(ensurePackages(packages, { say, isRoot: true })).rejects.toThrow(/install.* failed with 100/)
  await haveAptGet('exit 0')
  await expect(ensurePackages(packages, { say, isRoot: true })).rejects.toThrow('apt-get did not bring berth-test-tool')
})
