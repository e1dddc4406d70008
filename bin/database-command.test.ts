import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createBerthClient } from '@berth/sdk/client.ts'
import { pino } from 'pino'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openDataDirectory } from './data-directory.ts'
import { backupDatabase, checkDatabase, restoreDatabase } from './database-command.ts'
import { startDev } from './dev/dev.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'berth-test-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const dataDir = () => join(directory, 'data')
const backup = (options: { force?: boolean } = {}) =>
  backupDatabase(join(directory, 'backup.db'), { dataDir: dataDir(), force: options.force ?? false })
const restore = () => restoreDatabase(join(directory, 'backup.db'), { dataDir: dataDir() })

/** A whole `berth dev` in this process, on the data directory. */
async function start() {
  const data = await openDataDirectory(dataDir(), 'simulated')
  const options = {
    listen: { host: '127.0.0.1', port: 0 },
    hypervisor: 'simulated',
    allowPrivateImageSources: false,
  } as const
  const dev = await startDev(data, options, pino({ level: 'silent' }))
  const client = createBerthClient(dev.url)
  return {
    async create(): Promise<string> {
      const { data: created } = await client.POST('/v1/instances', {
        body: { spec: { type: 'micro', image: 'micro' } },
      })
      if (created === undefined) throw new Error('the create was refused')
      return created.id
    },
    async ids(): Promise<string[]> {
      const { data: list } = await client.GET('/v1/instances')
      return (list?.items ?? []).map((instance) => instance.id)
    },
    async stop(): Promise<void> {
      await dev.stop()
      await data.release()
    },
  }
}

test('a backup that is taken under load has every write that was acknowledged before, and is whole', async () => {
  const berth = await start()
  const before: string[] = []
  let stop = false
  const load = Array.from({ length: 8 }, async () => {
    while (!stop) before.push(await berth.create())
  })
  while (before.length < 50) await new Promise((resolve) => setImmediate(resolve))
  const acknowledged = [...before]
  const said = await backup()
  stop = true
  await Promise.all(load)
  await berth.stop()
  expect(said).toMatch(/backup\.db: \d+ instances, \d+ operations, newest event \d+, schema \d{4}-[a-z-]+$/)
  expect(checkDatabase(join(directory, 'backup.db'))).toContain('is whole')

  rmSync(dataDir(), { recursive: true })
  const empty = await start()
  await empty.stop()
  await restore()
  const restored = await start()
  expect(await restored.ids()).toEqual(expect.arrayContaining(acknowledged))
  await restored.stop()
})

test('a restore brings back what the backup has and keeps what was there beside it', async () => {
  let berth = await start()
  const old = await berth.create()
  await backup()
  const newer = await berth.create()
  await berth.stop()
  expect(await restore()).toMatch(/restored .*berth\.db: 1 instances[\s\S]*before is kept in/)
  berth = await start()
  expect(await berth.ids()).toEqual([old])
  await berth.stop()
  const kept = readdirSync(dataDir()).find((name) => name.startsWith('berth.db.before-'))
  expect(checkDatabase(join(dataDir(), kept ?? ''))).toContain('2 instances')
  expect(newer).not.toBe(old)
})

test('a restore is refused while a server works with the data directory', async () => {
  const berth = await start()
  await backup()
  await expect(restore()).rejects.toThrow(/is in use by process/)
  await berth.create()
  expect(await berth.ids()).toHaveLength(1)
  await berth.stop()
})

test('a backup does not replace a file unless it is told to', async () => {
  const berth = await start()
  await backup()
  await expect(backup()).rejects.toThrow(/exists; give --force/)
  await backup({ force: true })
  await berth.stop()
})

test('a backup is for its owner alone, also in place of a file that all could read: user data is in it', async () => {
  await (await start()).stop()
  const mode = () => (statSync(join(directory, 'backup.db')).mode & 0o777).toString(8)
  await backup()
  expect(mode()).toBe('600')
  chmodSync(join(directory, 'backup.db'), 0o644)
  writeFileSync(join(directory, 'backup.db.partial'), 'what a backup before left')
  await backup({ force: true })
  expect(mode()).toBe('600')
  expect(readdirSync(directory).sort()).toEqual(['backup.db', 'data'])
})

test('a file that is no backup, or a damaged one, is refused and nothing is changed', async () => {
  const berth = await start()
  const id = await berth.create()
  await backup()
  await berth.stop()
  const file = join(directory, 'backup.db')
  truncateSync(file, 8192)
  await expect(restore()).rejects.toThrow(/is damaged|is not a database of Berth/)
  writeFileSync(file, 'this is no database, but it is long enough to look at'.repeat(100))
  await expect(restore()).rejects.toThrow(/is not a database of Berth/)
  rmSync(file)
  await expect(restore()).rejects.toThrow(/cannot be opened/)
  const again = await start()
  expect(await again.ids()).toEqual([id])
  await again.stop()
})

test('a backup of a directory that has no database says so', async () => {
  await expect(backup()).rejects.toThrow(/cannot be backed up/)
})
