import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { renameDurably } from '@berth/agent/sys/durable-rename.ts'
import { identifyProcess, isAlive, type ProcessIdentity } from '@berth/agent/sys/process.ts'
import { installationIdPattern } from '@berth/contract/hosts/names.ts'
import { base32 } from '@berth/contract/ids.ts'
import SqliteDatabase from 'better-sqlite3'

/** Paths below a data directory; everything in it is root's alone. */
export const dataPaths = (data: string) => ({
  installation: join(data, 'installation.json'),
  publicRange: join(data, 'public-range.json'),
  lock: join(data, 'lock.db'),
  process: join(data, 'process.json'),
  database: join(data, 'berth.db'),
  keys: join(data, 'keys'),
  images: join(data, 'images'),
  agent: join(data, 'agent'),
  ledger: join(data, 'agent', 'ledger.db'),
})

/** Names that may stand in a data directory; nothing else is ever touched in it. */
const ownNames = [
  ...['public-range.json', 'public-range.json.partial'],
  ...['installation.json', 'installation.json.partial', 'process.json', 'keys', 'images', 'agent', 'known_hosts'],
  ...['lock.db', 'berth.db'].flatMap((file) => [file, `${file}-journal`, `${file}-wal`, `${file}-shm`]),
  'berth.db.partial',
  'berth.db.reserve',
]

/** A database that a restore has replaced. */
const isKeptDatabase = (name: string) => name.startsWith('berth.db.before-')

export type HypervisorName = 'qemu' | 'simulated'

/** Directory of sockets and other files that live no longer than the machine's uptime. */
export const runtimeDirectory = (installation: string) => join('/run/berth', installation)

export interface DataDirectory {
  path: string
  installation: string
  /** Tell others where the server listens. */
  noteUrl(url: string): Promise<void>
  /** Let another process have it. */
  release(): Promise<void>
}

/** A data directory that cannot be used; the message says why and what to do. */
export class DataDirectoryError extends Error {
  override readonly name = 'DataDirectoryError'
}

/** Another process works on the data directory. */
export class DataDirectoryInUse extends DataDirectoryError {
  constructor(path: string, holder: Holder | null) {
    const who =
      holder === null ? 'another process' : `process ${holder.pid}${holder.url === '' ? '' : ` (${holder.url})`}`
    super(`${path} is in use by ${who}; stop that first, or choose another with --data-dir`)
  }
}

interface Holder extends ProcessIdentity {
  /** "" until the server listens. */
  url: string
}

/**
 * Make the data directory where it is missing and take it for this process alone. The lock is an exclusive transaction
 * on lock.db, which the kernel gives up with the process, however that ends. A directory belongs to one hypervisor: what
 * real machines it has would be forgotten by a simulated host. Throws DataDirectoryError.
 */
export async function openDataDirectory(data: string, hypervisor: HypervisorName): Promise<DataDirectory> {
  const path = resolve(data)
  const paths = dataPaths(path)
  await mkdir(path, { recursive: true, mode: 0o700 })
  await refuseForeignDirectory(path)
  await chmod(path, 0o700)
  for (const directory of [paths.keys, paths.images, paths.agent]) {
    await mkdir(directory, { recursive: true, mode: 0o700 })
  }
  const lock = await takeLock(path)
  try {
    const installation = await installationOf(paths.installation, hypervisor)
    const self = await identifyProcess(process.pid)
    const note = (url: string) => writeFile(paths.process, JSON.stringify({ ...self, url }), { mode: 0o600 })
    await note('')
    return {
      path,
      installation,
      noteUrl: note,
      release: async () => {
        await rm(paths.process, { force: true })
        lock.close()
      },
    }
  } catch (error) {
    lock.close()
    throw error
  }
}

/**
 * Keep every other process from working on an existing data directory; gives the function that lets go of it. Throws
 * DataDirectoryError.
 */
export async function lockDataDirectory(path: string): Promise<() => void> {
  if (!(await isDataDirectory(path))) {
    throw new DataDirectoryError(`${path} is not a data directory of Berth; choose another with --data-dir`)
  }
  const lock = await takeLock(path)
  return () => lock.close()
}

/** Whether there is an installation in a directory. */
export async function isDataDirectory(data: string): Promise<boolean> {
  return (await readIfThere(dataPaths(resolve(data)).installation)) !== null
}

/** The living process that has taken the directory, or null. */
export async function findHolder(data: string): Promise<Holder | null> {
  const text = await readIfThere(dataPaths(resolve(data)).process)
  if (text === null) return null
  try {
    const { pid, startTime, url } = Object(JSON.parse(text))
    if (!Number.isInteger(pid) || typeof startTime !== 'string' || typeof url !== 'string') return null
    return (await isAlive({ pid, startTime })) ? { pid, startTime, url } : null
  } catch {
    return null // it is being written, or the disk was full
  }
}

/** Remove what Berth has made in a data directory, and the directory when nothing else is in it. */
export async function purgeDataDirectory(path: string): Promise<void> {
  const kept = (await readdir(path)).filter(isKeptDatabase)
  for (const name of [...ownNames, ...kept]) await rm(join(path, name), { recursive: true, force: true })
  await rmdir(path).catch((error: unknown) => {
    if (Reflect.get(Object(error), 'code') !== 'ENOTEMPTY') throw error
  })
}

async function refuseForeignDirectory(path: string): Promise<void> {
  const foreign = (await readdir(path)).find((name) => !ownNames.includes(name) && !isKeptDatabase(name))
  if (foreign === undefined || (await isDataDirectory(path))) return
  throw new DataDirectoryError(
    `${path} is not a data directory of Berth (it holds ${foreign}); choose another with --data-dir`,
  )
}

async function takeLock(path: string): Promise<SqliteDatabase.Database> {
  const lock = new SqliteDatabase(dataPaths(path).lock, { timeout: 0 })
  try {
    lock.exec('begin exclusive')
    return lock
  } catch (error) {
    lock.close()
    if (error instanceof Error && Reflect.get(error, 'code') === 'SQLITE_BUSY') {
      throw new DataDirectoryInUse(path, await findHolder(path))
    }
    throw error
  }
}

async function installationOf(file: string, hypervisor: HypervisorName): Promise<string> {
  const text = await readIfThere(file)
  if (text !== null) return parseInstallation(file, text, hypervisor)
  const id = base32(BigInt(randomBytes(4).readUInt32BE(0)), 6)
  await writeFile(`${file}.partial`, `${JSON.stringify({ id, hypervisor })}\n`, { mode: 0o600 })
  await renameDurably(`${file}.partial`, file)
  return id
}

function parseInstallation(file: string, text: string, hypervisor: HypervisorName): string {
  let stored: { id?: unknown; hypervisor?: unknown }
  try {
    stored = Object(JSON.parse(text))
  } catch {
    stored = {}
  }
  if (typeof stored.id !== 'string' || !new RegExp(installationIdPattern).test(stored.id)) {
    throw new DataDirectoryError(`${file} does not hold an installation id; restore it, or use an empty data directory`)
  }
  if (stored.hypervisor !== hypervisor) {
    throw new DataDirectoryError(
      `${file} says that this data directory is for --hypervisor ${String(stored.hypervisor)}; choose another directory`,
    )
  }
  return stored.id
}

async function readIfThere(file: string): Promise<string | null> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    if (Reflect.get(Object(error), 'code') === 'ENOENT') return null
    throw error
  }
}
