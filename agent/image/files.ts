import { createHash, randomBytes } from 'node:crypto'
import { constants, createReadStream } from 'node:fs'
import { lstat, mkdir, open, readdir, readFile, rename, rm, stat, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as delay } from 'node:timers/promises'
import { imageIdPattern } from '@berth/contract/ids.ts'
import { HostImage } from '@berth/contract/images/images.ts'
import type { Logger } from 'pino'
import { Value } from 'typebox/value'
import { runCommand } from '../sys/run-command.ts'
import { upgradeChecksums } from './earlier-versions.ts'
import { ForeignImageError, identifyImage } from './header.ts'
import { convertToQcow2, type InspectionOptions, inspectImage, readImageEnds } from './inspection.ts'

/** What the one who publishes an image says about it; the rest of HostImage is read from the file. */
export type ImageAbout = Omit<HostImage, 'sha256' | 'size_bytes' | 'virtual_size_bytes' | 'created_at'>

/** Where the disk of an image is, whether or not it exists. */
export function imagePath(directory: string, id: string): string {
  return join(directory, `${id}.qcow2`)
}

/**
 * A name in `directory` for work on an image, made so that two processes at work on the same image never share it.
 * Ends with `.partial`: whatever does is no image, and is removed when it is a day old.
 */
export function workPath(directory: string, id: string, purpose: 'import' | 'convert'): string {
  return join(directory, `${id}.qcow2.${purpose}-${randomBytes(6).toString('hex')}.partial`)
}

/**
 * Where a publisher is: another one holds the lock; the old description is gone; the disk is replaced; it is described.
 */
type PublishPoint = 'waiting' | 'undescribed' | 'replaced' | 'described'

export interface PublishOptions {
  /** Milliseconds UTC, for `created_at`. Default Date.now. */
  now?: () => number
  signal?: AbortSignal
  /** Awaited at each point; tests force races and crashes there. */
  reached?: (point: PublishPoint) => Promise<void> | void
}

/**
 * Make the finished, checked qcow2 at `partialPath` (a file in `directory` whose name ends with `.partial`) the image
 * `about.id`, replacing an earlier one, and give its description. Instances made from the earlier one keep its inode
 * through their own links.
 *
 * A crash at any line leaves the old image, the new one, or none, and never a description beside another disk:
 * the old description goes first, durably, then the disk is replaced, then described. Publishers of any process take
 * turns. Throws ForeignImageError when the file is no self-contained qcow2.
 */
export async function publishImage(
  directory: string,
  partialPath: string,
  about: ImageAbout,
  options: PublishOptions = {},
): Promise<HostImage> {
  if (dirname(partialPath) !== directory.replace(/(?<=.)\/+$/, '') || !partialPath.endsWith('.partial')) {
    throw new TypeError(`an image is published from a .partial file in ${directory}, not from ${partialPath}`)
  }
  const { sizeBytes, virtualSizeBytes } = await settle(partialPath)
  const image = Value.Parse(HostImage, {
    ...about,
    sha256: await hashFile(partialPath, 'sha256', options.signal),
    size_bytes: sizeBytes,
    virtual_size_bytes: virtualSizeBytes,
    created_at: new Date(options.now?.() ?? Date.now()).toISOString().replace(/\.\d+Z$/, 'Z'),
  })
  const descriptionPath = join(directory, `${image.id}.json`)
  const draftPath = `${descriptionPath}.${randomBytes(6).toString('hex')}.partial`
  await writeDurably(draftPath, `${JSON.stringify(image, null, 2)}\n`)
  try {
    await withPublishLock(directory, options, async () => {
      await rm(descriptionPath, { force: true })
      await syncDirectory(directory)
      await options.reached?.('undescribed')
      await rename(partialPath, imagePath(directory, image.id))
      await syncDirectory(directory)
      await options.reached?.('replaced')
      await rename(draftPath, descriptionPath)
      await syncDirectory(directory)
      await options.reached?.('described')
    })
  } catch (error) {
    await rm(draftPath, { force: true })
    throw error
  }
  return image
}

/**
 * Remove what was downloaded for the image made through the API with this checksum. What else is there under the id
 * stays, as do the links that instances have. The description goes last: while it is there, a removal that a crash has
 * cut short can be told and done again.
 */
export async function removeRegisteredImage(directory: string, id: string, registeredChecksum: string): Promise<void> {
  const descriptionPath = join(directory, `${id}.json`)
  const text = await readFile(descriptionPath, 'utf8').catch(ignoreMissing)
  const described = text === undefined ? null : parseDescription(text)
  if (described === null || typeof described === 'string' || described.registered_checksum !== registeredChecksum)
    return
  await withPublishLock(directory, {}, async () => {
    if ((await readFile(descriptionPath, 'utf8').catch(ignoreMissing)) !== text) return // another one was published
    await rm(imagePath(directory, id), { force: true })
    await syncDirectory(directory)
    await rm(descriptionPath, { force: true })
    await syncDirectory(directory)
  })
}

/** What an import may say about its file; what it leaves out follows from the file or the id. */
export type ImportAbout = Pick<HostImage, 'id'> &
  Partial<
    Pick<HostImage, 'title' | 'default_user' | 'min_disk_gb' | 'network' | 'datasource' | 'ready_timeout_seconds'>
  >

export interface ImportOptions extends InspectionOptions {
  now?: () => number
}

/**
 * Copy a disk image of this machine (qcow2 or raw) into the store and publish it. Defaults: the id as title, `root` as
 * user, a static address, a seed on a disk, and the smallest disk that holds the image. The file itself is left as it
 * is; a failure leaves nothing behind. Throws ForeignImageError when it is no image, or does not fit on `min_disk_gb`.
 */
export async function importImage(
  file: string,
  about: ImportAbout,
  directory: string,
  options: ImportOptions = {},
): Promise<HostImage> {
  if (!new RegExp(imageIdPattern).test(about.id)) throw new TypeError(`${about.id} is not an image id`)
  const source = await stat(file)
  if (!source.isFile()) throw new ForeignImageError('not_an_image', `${file} is not a regular file`)
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const { bavail, bsize } = await statfs(directory)
  // Blocks, not length: a sparse file needs only what it holds.
  if (source.blocks * 512 > bavail * bsize) {
    throw new Error(`no room for ${file}: ${source.blocks * 512} bytes needed, ${bavail * bsize} free in ${directory}`)
  }
  const copy = workPath(directory, about.id, 'import')
  const converted = workPath(directory, about.id, 'convert')
  try {
    await copySparse(file, copy, options.signal)
    const image = await inspectImage(copy, options)
    if (image.format === 'raw') await convertToQcow2(copy, converted, options)
    const disk = image.format === 'raw' ? converted : copy
    const smallestGb = Math.ceil(image.virtualSizeBytes / 1024 ** 3)
    const minDiskGb = about.min_disk_gb ?? smallestGb
    refuseSmallDisk(image.virtualSizeBytes, minDiskGb)
    const description: ImageAbout = {
      id: about.id,
      title: about.title ?? about.id,
      min_disk_gb: minDiskGb,
      architecture: 'x86_64',
      default_user: about.default_user ?? 'root',
      network: about.network ?? 'static',
      datasource: about.datasource ?? 'disk',
      ...(about.ready_timeout_seconds === undefined ? {} : { ready_timeout_seconds: about.ready_timeout_seconds }),
      origin: 'imported',
      firmware: image.firmware,
      source_url: '',
    }
    return await publishImage(directory, disk, description, options)
  } finally {
    await rm(copy, { force: true })
    await rm(converted, { force: true })
  }
}

/** Refuse an image whose disk is larger than the smallest disk it promises to fit on (GiB). */
export function refuseSmallDisk(virtualSizeBytes: number, minDiskGb: number): void {
  if (virtualSizeBytes <= minDiskGb * 1024 ** 3) return
  const needed = Math.ceil(virtualSizeBytes / 1024 ** 3)
  throw new ForeignImageError('too_large', `the image needs a disk of ${needed} GiB, min_disk_gb says ${minDiskGb}`)
}

/**
 * The images in `directory`, by id: each `<id>.json` that is valid and has its disk beside it, of the size it says.
 * Broken ones are left out and warned about; `warned` remembers them, so that a pass every few seconds says it once
 * and says it again when another thing breaks. A directory that does not exist holds no images.
 */
export async function scanImages(
  directory: string,
  log: Logger,
  warned: Map<string, string> = new Map(),
): Promise<HostImage[]> {
  const names = (await readdir(directory).catch(ignoreMissing)) ?? []
  const images: HostImage[] = []
  const broken = new Map<string, string>()
  for (const name of names.filter((each) => each.endsWith('.json')).sort()) {
    const read = await readDescription(directory, name)
    if (read === null) continue // replaced while we looked: the next pass sees it
    if (typeof read !== 'string') {
      images.push(read)
      continue
    }
    broken.set(name, read)
    if (warned.get(name) !== read) log.warn({ file: join(directory, name), reason: read }, 'image ignored')
  }
  warned.clear()
  for (const [name, reason] of broken) warned.set(name, reason)
  return images
}

/** The image a description names, the reason why it does not count, or null when it is gone. */
async function readDescription(directory: string, name: string): Promise<HostImage | string | null> {
  const path = join(directory, name)
  const file = await lstat(path).catch(ignoreMissing)
  if (file === undefined) return null
  if (!file.isFile() || file.size > 65_536) return 'not a regular file of at most 64 KiB'
  const text = await readFile(path, 'utf8').catch(ignoreMissing)
  if (text === undefined) return null
  const image = parseDescription(text)
  if (typeof image === 'string') return image
  if (`${image.id}.json` !== name) return `it describes the image ${image.id}`
  const disk = await lstat(imagePath(directory, image.id)).catch(ignoreMissing)
  const changed = (await lstat(path).catch(ignoreMissing))?.ino !== file.ino
  if (changed) return null
  if (disk === undefined) return `${image.id}.qcow2 is missing`
  if (!disk.isFile()) return `${image.id}.qcow2 is not a regular file`
  if (disk.size !== image.size_bytes) return `${image.id}.qcow2 has ${disk.size} bytes, not ${image.size_bytes}`
  return image
}

function parseDescription(text: string): HostImage | string {
  let document: unknown
  try {
    document = upgradeChecksums(JSON.parse(text), 'held')
  } catch {
    return 'not JSON'
  }
  if (Value.Check(HostImage, document)) return document
  const [first] = Value.Errors(HostImage, document)
  return first === undefined ? 'not an image description' : `${first.instancePath || 'it'} ${first.message}`
}

/** The digest of a file, hexadecimal, read as a stream. */
export async function hashFile(path: string, algorithm: 'sha256' | 'sha512', signal?: AbortSignal): Promise<string> {
  const hash = createHash(algorithm)
  const stream = createReadStream(path, { highWaterMark: 1024 * 1024, ...(signal === undefined ? {} : { signal }) })
  for await (const chunk of stream) hash.update(chunk)
  return hash.digest('hex')
}

/** Value for a `catch` that lets only "no such file" pass, as undefined. */
export function ignoreMissing(error: unknown): undefined {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
  throw error
}

// cp shares blocks where the file system can and keeps holes; Node's copyFile fills them.
async function copySparse(source: string, destination: string, signal?: AbortSignal): Promise<void> {
  await (await open(destination, 'wx', 0o600)).close()
  await runCommand(['cp', '--reflink=auto', '--sparse=always', '--', source, destination], {
    timeoutMs: 3_600_000,
    ...(signal === undefined ? {} : { signal }),
  })
}

// Last look at the file, its mode, and its bytes on the disk.
async function settle(partialPath: string): Promise<{ sizeBytes: number; virtualSizeBytes: number }> {
  const handle = await open(partialPath, constants.O_RDWR | constants.O_NOFOLLOW)
  try {
    const ends = await readImageEnds(handle)
    const image = identifyImage(ends)
    if (image.format !== 'qcow2') throw new ForeignImageError('unsupported_format', 'only qcow2 can be published')
    await handle.chmod(0o600)
    await handle.sync()
    return { sizeBytes: ends.sizeBytes, virtualSizeBytes: image.virtualSizeBytes }
  } finally {
    await handle.close()
  }
}

async function writeDurably(path: string, text: string): Promise<void> {
  const handle = await open(path, 'wx', 0o600)
  try {
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/**
 * Run `work` while no other process publishes in `directory`. An SQLite lock, because the kernel frees it with its
 * process, however that ends; Node has no flock. Waits at most 30 s.
 */
async function withPublishLock<T>(directory: string, options: PublishOptions, work: () => Promise<T>): Promise<T> {
  const path = join(directory, '.publish.lock')
  await (await open(path, 'a', 0o600)).close()
  const lock = new DatabaseSync(path, { timeout: 0 })
  try {
    for (let attempt = 0; !tryLock(lock); attempt += 1) {
      if (attempt === 0) await options.reached?.('waiting')
      if (attempt >= 600) throw new Error(`another process has been publishing an image in ${directory} for 30 s`)
      await delay(50, undefined, options.signal === undefined ? {} : { signal: options.signal })
    }
    return await work()
  } finally {
    lock.close()
  }
}

const sqliteBusy = 5 // SQLITE_BUSY, https://sqlite.org/rescode.html

function tryLock(lock: DatabaseSync): boolean {
  try {
    lock.exec('BEGIN EXCLUSIVE')
    return true
  } catch (error) {
    if (error instanceof Error && 'errcode' in error && error.errcode === sqliteBusy) return false
    throw error
  }
}
