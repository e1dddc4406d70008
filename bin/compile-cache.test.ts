import { chmod, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { compileCacheDirectory } from './compile-cache.js'

const uid = process.getuid?.() ?? 0
let home: string

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'berth-home-'))
})
afterEach(() => rm(home, { recursive: true }))

test('compiled modules are kept in a directory that is the user’s alone', async () => {
  const directory = compileCacheDirectory({ uid, homedir: home })
  expect(directory).toBe(join(home, '.cache/berth/compiled'))
  expect((await stat(directory ?? '')).mode & 0o777).toBe(0o700)
})

test('XDG_CACHE_HOME names another place, but not to root', async () => {
  const named = join(home, 'xdg')
  const expected = uid === 0 ? join(home, '.cache/berth/compiled') : join(named, 'berth/compiled')
  expect(compileCacheDirectory({ uid, homedir: home }, named)).toBe(expected)
  expect(compileCacheDirectory({ uid, homedir: home }, 'relative')).toBe(join(home, '.cache/berth/compiled'))
})

test('nothing is kept where others can write, or in what another user owns', async () => {
  const directory = compileCacheDirectory({ uid, homedir: home })
  expect(compileCacheDirectory({ uid: uid + 1, homedir: home })).toBe(null)
  await chmod(directory ?? '', 0o777)
  expect(compileCacheDirectory({ uid, homedir: home })).toBe(null)
})

test('nothing is kept without a home that can be written to', async () => {
  await writeFile(join(home, 'file'), '')
  expect(compileCacheDirectory({ uid, homedir: join(home, 'file') })).toBe(null)
  expect(compileCacheDirectory({ uid, homedir: '' })).toBe(null)
})
