import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import type { HostImage } from '@berth/contract/images/images.ts'
import Type from 'typebox'
import { Value } from 'typebox/value'
import { CommandError, runCommand } from '../sys/run-command.ts'
import { bootAreaBytes, firmwareOf } from './firmware.ts'
import { ForeignImageError, type ImageEnds, type ImageFormat, identifyImage, imageHeadBytes } from './header.ts'

/** Who reads foreign images when the agent is root, and what may end the reading. */
export interface InspectionOptions {
  /** Defaults to `inspectionUid`. */
  uid?: number
  /** Defaults to `uid`. */
  gid?: number
  signal?: AbortSignal
}

/** The uid below the first instance's (1,900,000,000 + slot): no instance and no account of the machine has it. */
export const inspectionUid = 1_900_000_000 - 1

/** What an inspection finds. */
export interface InspectedImage extends ImageFormat {
  firmware: NonNullable<HostImage['firmware']>
}

const addressSpaceBytes = 2 * 1024 ** 3

// What `qemu-img info --output=json` says (QEMU, qapi/block-core.json, ImageInfo), as far as it is decided upon.
const QemuImgInfo = Type.Object({
  format: Type.String(),
  'virtual-size': Type.Integer({ minimum: 1 }),
  encrypted: Type.Optional(Type.Boolean()),
  'backing-filename': Type.Optional(Type.String()),
  'full-backing-filename': Type.Optional(Type.String()),
  'format-specific': Type.Optional(
    Type.Object({
      data: Type.Optional(Type.Object({ 'data-file': Type.Optional(Type.String()) })),
    }),
  ),
})

/**
 * Tell what a foreign file is and that it is safe and whole enough to be an image: qcow2 without references to other
 * files, or a raw disk. Throws ForeignImageError with a code and a sentence for the person who offered the file;
 * CommandError when qemu-img itself cannot run here.
 *
 * The header is judged in this process first; qemu-img then reads it with the format given, never guessed, as an
 * unprivileged user with limits (when the agent is root), through an open descriptor. For that time the file's group is
 * that user's and may read it, so `path` must be a file of ours in a directory closed to others.
 */
export async function inspectImage(path: string, options: InspectionOptions = {}): Promise<InspectedImage> {
  const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    const image = identifyImage(await readImageEnds(handle))
    return await lend(handle, 0o640, options, async () => {
      const limits = { cpuSeconds: 30, timeoutMs: 60_000 }
      const argv = ['qemu-img', 'info', '--force-share', '-f', image.format, '--output=json', fdPath(0)]
      const info = parseInfo(await judged(runConfined(argv, [handle.fd], limits, options)))
      compareInfo(info, image)
      if (image.format === 'qcow2') await checkQcow2(handle, options)
      const length = Math.min(bootAreaBytes, image.virtualSizeBytes - (image.virtualSizeBytes % 512))
      const bootArea =
        image.format === 'qcow2' ? await readQcow2(handle, length, options) : await readAt(handle, 0, length)
      return { ...image, firmware: firmwareOf(bootArea) }
    })
  } finally {
    await handle.close()
  }
}

/**
 * Write the raw image at `source` as qcow2 into `destination`, which must not exist. Runs qemu-img like
 * `inspectImage`; the output is judged like a foreign file too, since the process that wrote it read foreign bytes.
 * Throws CommandError when the conversion fails (disk full, qemu-img missing); the caller removes `destination`.
 */
export async function convertToQcow2(
  source: string,
  destination: string,
  options: InspectionOptions = {},
): Promise<InspectedImage> {
  const input = await open(source, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    const output = await open(destination, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600)
    try {
      const sizeBytes = (await input.stat()).size
      const limits = {
        cpuSeconds: 1800,
        timeoutMs: 3_600_000,
        // The tables of a full qcow2 take less than a thousandth; a converter that writes more is out of control.
        fileSizeBytes: sizeBytes + Math.ceil(sizeBytes / 1000) + 64 * 1024 ** 2,
      }
      const argv = ['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', '-o', 'compat=1.1', fdPath(0), fdPath(1)]
      await lend(input, 0o640, options, () =>
        lend(output, 0o660, options, () => runConfined(argv, [input.fd, output.fd], limits, options)),
      )
    } finally {
      await output.close()
    }
  } finally {
    await input.close()
  }
  return inspectImage(destination, options)
}

/** Read what `identifyImage` looks at. Refuses anything but a regular file. */
export async function readImageEnds(handle: FileHandle): Promise<ImageEnds> {
  const stat = await handle.stat()
  if (!stat.isFile()) throw new ForeignImageError('not_an_image', 'not a regular file')
  const head = await readAt(handle, 0, Math.min(imageHeadBytes, stat.size))
  const tail = await readAt(handle, Math.max(0, stat.size - 512), Math.min(512, stat.size))
  return { head, tail, sizeBytes: stat.size }
}

async function readAt(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length)
  let filled = 0
  while (filled < length) {
    const { bytesRead } = await handle.read(buffer, filled, length - filled, position + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return buffer.subarray(0, filled)
}

function parseInfo(json: string): Type.Static<typeof QemuImgInfo> {
  try {
    return Value.Parse(QemuImgInfo, JSON.parse(json))
  } catch (cause) {
    throw new ForeignImageError('damaged', 'qemu-img does not describe this file as an image', { cause })
  }
}

// A second opinion: an image that QEMU reads differently from us was made to be misread.
function compareInfo(info: Type.Static<typeof QemuImgInfo>, image: ImageFormat): void {
  if (info['backing-filename'] !== undefined || info['full-backing-filename'] !== undefined) {
    throw new ForeignImageError('has_backing_file', 'the image is an overlay with a backing file')
  }
  if (info['format-specific']?.data?.['data-file'] !== undefined) {
    throw new ForeignImageError('has_data_file', 'the image keeps its data in another file')
  }
  if (info.encrypted === true) throw new ForeignImageError('encrypted', 'the image is encrypted')
  // QEMU rounds a raw disk up to whole sectors.
  const expectedSize = image.format === 'raw' ? Math.ceil(image.virtualSizeBytes / 512) * 512 : image.virtualSizeBytes
  if (info.format !== image.format || info['virtual-size'] !== expectedSize) {
    throw new ForeignImageError('damaged', `qemu-img reads the file as ${info.format} of ${info['virtual-size']} bytes`)
  }
}

// `qemu-img check` walks the tables, so it notices a file that was cut off. Exit code 3 means leaked clusters: harmless.
async function checkQcow2(handle: FileHandle, options: InspectionOptions): Promise<void> {
  const limits = { cpuSeconds: 30, timeoutMs: 60_000 }
  try {
    const argv = ['qemu-img', 'check', '--force-share', '-q', '-f', 'qcow2', fdPath(0)]
    await judged(runConfined(argv, [handle.fd], limits, options))
  } catch (error) {
    if (error instanceof ForeignImageError && error.cause instanceof CommandError && error.cause.exitCode === 3) return
    throw error
  }
}

/** The first bytes of the disk that a qcow2 holds. What is in its clusters was written by strangers: qemu-io is confined. */
async function readQcow2(handle: FileHandle, length: number, options: InspectionOptions): Promise<Buffer> {
  if (length === 0) return Buffer.alloc(0)
  const argv = ['qemu-io', '-r', '-U', '-f', 'qcow2', '-c', `read -v 0 ${length}`, fdPath(0)]
  const dump = await judged(runConfined(argv, [handle.fd], { cpuSeconds: 30, timeoutMs: 60_000 }, options))
  const lines = dump.matchAll(/^[0-9a-f]{8}:\s+((?:[0-9a-f]{2} ){1,16})/gm)
  return Buffer.from([...lines].map(([, bytes = '']) => bytes.replaceAll(' ', '')).join(''), 'hex')
}

// Exit codes 126 and 127 come from prlimit and setpriv: the program is not there. That is this host's fault.
async function judged(running: Promise<string>): Promise<string> {
  try {
    return await running
  } catch (cause) {
    const about = cause instanceof CommandError ? cause : null
    if (about === null || (about.signal === null && [null, 126, 127].includes(about.exitCode))) throw cause
    if (['SIGINT', 'SIGTERM', 'SIGHUP'].includes(about.signal ?? '')) throw cause // somebody ended it: no word on the image
    const why = about.signal === null ? about.stderrTail.split('\n', 1)[0] : `reading it ended with ${about.signal}`
    throw new ForeignImageError('damaged', `the image cannot be read: ${why || 'its tables are inconsistent'}`, {
      cause,
    })
  }
}

// `/proc/self/fd/N` opens the inode behind the descriptor, whatever the directories above it allow.
function fdPath(index: number): string {
  return `/proc/self/fd/${3 + index}`
}

/**
 * Let the confined group use an open file while `work` runs. Opening `/proc/self/fd/N` checks the inode's own
 * permissions again, so the descriptor alone is not enough. Group, not owner: an owner could change the mode.
 */
async function lend<T>(
  handle: FileHandle,
  mode: 0o640 | 0o660,
  options: InspectionOptions,
  work: () => Promise<T>,
): Promise<T> {
  if (process.getuid?.() !== 0) return work()
  const before = await handle.stat()
  await handle.chown(before.uid, confinedIds(options).gid)
  await handle.chmod(mode)
  try {
    return await work()
  } finally {
    await handle.chmod(0o600)
    await handle.chown(before.uid, before.gid)
  }
}

function confinedIds(options: InspectionOptions): { uid: number; gid: number } {
  const uid = options.uid ?? inspectionUid
  return { uid, gid: options.gid ?? uid }
}

interface ConfinementLimits {
  cpuSeconds: number
  timeoutMs: number
  /** 0 by default: a reader writes nothing. */
  fileSizeBytes?: number
}

/** Run a command with limits and, when root, as the unprivileged user; `fds` become descriptors 3, 4, … */
async function runConfined(
  argv: readonly string[],
  fds: readonly number[],
  limits: ConfinementLimits,
  options: InspectionOptions,
): Promise<string> {
  options.signal?.throwIfAborted()
  const running = runCommand(argv, {
    through: [...limitArgv(limits), ...userArgv(options)],
    cwd: '/',
    fds,
    timeoutMs: limits.timeoutMs,
    maxOutputBytes: 1024 * 1024,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  })
  const { stdout } = await running.catch((error) => {
    options.signal?.throwIfAborted()
    throw error
  })
  return stdout
}

function limitArgv(limits: ConfinementLimits): string[] {
  return [
    'prlimit',
    `--cpu=${limits.cpuSeconds}`,
    `--as=${addressSpaceBytes}`,
    `--fsize=${limits.fileSizeBytes ?? 0}`,
    '--nofile=64',
    '--core=0',
    '--',
  ]
}

function userArgv(options: InspectionOptions): string[] {
  if (process.getuid?.() !== 0) return []
  const { uid, gid } = confinedIds(options)
  return [
    'setpriv',
    `--reuid=${uid}`,
    `--regid=${gid}`,
    '--clear-groups',
    '--no-new-privs',
    '--inh-caps=-all',
    '--ambient-caps=-all',
    '--bounding-set=-all',
    '--',
  ]
}
