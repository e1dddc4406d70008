import { randomBytes } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { installationIdPattern } from '@berth/contract/host-names.ts'
import { base32 } from '@berth/contract/ids.ts'
import SqliteDatabase from 'better-sqlite3'

/** Paths below a data directory; everything in it is root's alone. */
export const dataPaths = (data: string) => ({
  installation: join(data, 'installation.json'),
  lock: join(data, 'lock.db'),
  process: join(data, 'process.json'),
  database: join(data, 'berth.db'),
  keys: join(data, 'keys'),
  images: join(data, 'images'),
  agent: join(data, 'agent'),
  ledger: join(data, 'agent', 'ledger.db'),
})

/** Directory of sockets and other files that live no longer than the machine's uptime. */
export const runtimeDirectory = (installation: string) => join('/run/berth', installation)

export interface DataDirectory {
  path: string
  installation: string
  /** Let another process have it. */
  release(): void
}

/** Another process works on the data directory. `pid` and `url` are its own word, null when it has not said. */
export class DataDirectoryInUse extends Error {
  readonly pid: number | null

  constructor(path: string, holder: { pid: number; url: string } | null) {
    const who = holder === null ? 'another process' : `process ${holder.pid} (${holder.url})`
    super(`${path} is in use by ${who}; stop that first, or choose another with --data-dir`)
    this.name = 'DataDirectoryInUse'
    this.pid = holder?.pid ?? null
  }
}

/**
 * Make the data directory where it is missing and take it for this process alone. The lock is an exclusive transaction
 * on lock.db, which the kernel gives up with the process, however that ends. Throws DataDirectoryInUse.
 */
export async function openDataDirectory(data: string): Promise<DataDirectory> {
  const path = resolve(data)
  const paths = dataPaths(path)
  for (const directory of [path, paths.keys, paths.images, paths.agent]) {
    await mkdir(directory, { recursive: true, mode: 0o700 })
  }
  const lock = await takeLock(path)
  return { path, installation: await installationId(paths.installation), release: () => lock.close() }
}

/** Note who holds the directory, for `--down` and for error messages; the lock alone decides. */
export async function noteHolder(data: string, url: string): Promise<void> {
  await writeFile(dataPaths(data).process, JSON.stringify({ pid: process.pid, url }), { mode: 0o600 })
}

/** Who holds the directory by its own word, or null. */
export async function readHolder(data: string): Promise<{ pid: number; url: string } | null> {
  try {
    const holder: unknown = JSON.parse(await readFile(dataPaths(data).process, 'utf8'))
    const { pid, url } = Object(holder)
    return Number.isInteger(pid) && typeof url === 'string' ? { pid, url } : null
  } catch {
    return null
  }
}

async function takeLock(path: string): Promise<SqliteDatabase.Database> {
  const lock = new SqliteDatabase(dataPaths(path).lock, { timeout: 0 })
  try {
    lock.exec('begin exclusive')
    return lock
  } catch (error) {
    lock.close()
    if (error instanceof Error && Reflect.get(error, 'code') === 'SQLITE_BUSY') {
      throw new DataDirectoryInUse(path, await readHolder(path))
    }
    throw error
  }
}

async function installationId(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch(() => null)
  if (text !== null) {
    const id: unknown = Reflect.get(Object(JSON.parse(text)), 'id')
    if (typeof id === 'string' && new RegExp(installationIdPattern).test(id)) return id
    throw new Error(`${file} does not hold an installation id; restore it, or start with an empty data directory`)
  }
  const id = base32(BigInt(randomBytes(4).readUInt32BE(0)), 6)
  await writeFile(`${file}.partial`, `${JSON.stringify({ id })}\n`, { mode: 0o600 })
  await rename(`${file}.partial`, file)
  return id
}
