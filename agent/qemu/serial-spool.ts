import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, readlink, rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { isAlive, type ProcessIdentity } from '../sys/process.ts'
import { runCommand } from '../sys/run-command.ts'

/** Serial output that waits for an agent; what a VMM writes beyond it, with no agent to make room, is dropped. */
export const spoolBytes = 4 * 1024 * 1024

/** Bytes that are taken over before their pages are given back: each time is a command. */
const punchBytes = 1024 * 1024

/**
 * Where a VMM writes what its guest sends to the serial line: one file on a tmpfs of its own, which bounds it with
 * nobody there. The tmpfs has no place in the tree: it is reached through the descriptors of the processes that have the
 * file open, and goes with the last of them (docs/decisions/0040).
 */
export class SerialSpool {
  /** Position of the first byte, in bytes since the instance was created. */
  readonly base: number
  readonly #file: FileHandle
  readonly #process: ProcessIdentity | null
  /** The file of an agent before this one that left its VMM a log on the data disk; null for a tmpfs. */
  readonly #logFile: string | null
  #punched = 0

  private constructor(file: FileHandle, base: number, process: ProcessIdentity | null, logFile: string | null) {
    this.#file = file
    this.base = base
    this.#process = process
    this.#logFile = logFile
  }

  /** The spool of a running VMM; null when it has none. */
  static async of(process: ProcessIdentity, instanceId: string): Promise<SerialSpool | null> {
    const directory = `/proc/${process.pid}/fd`
    for (const fd of await readdir(directory).catch(() => [])) {
      const target = await readlink(join(directory, fd)).catch(() => '')
      const [name, base] = /^\/(.+)@(\d+)$/.exec(target)?.slice(1) ?? []
      if (name !== instanceId) continue
      return new SerialSpool(await open(join(directory, fd), constants.O_RDWR), Number(base), process, null)
    }
    return null
  }

  /** A log that a VMM writes, or wrote, on the data disk, started by an earlier version; null when there is none. */
  static async ofLog(
    logFile: string,
    base: number,
    writer: () => Promise<ProcessIdentity | null>,
  ): Promise<SerialSpool | null> {
    const file = await open(logFile, constants.O_RDWR).catch(() => null)
    return file === null ? null : new SerialSpool(file, base, await writer(), logFile)
  }

  /** A path that leads to the file, for this process and those it starts. */
  get path(): string {
    return `/proc/${process.pid}/fd/${this.#file.fd}`
  }

  /** Whether the VMM may still write. */
  async isWritten(): Promise<boolean> {
    return this.#process !== null && (await isAlive(this.#process))
  }

  async read(position: number, maxBytes: number): Promise<Buffer> {
    const { bytesRead, buffer } = await this.#file.read(Buffer.alloc(maxBytes), 0, maxBytes, position)
    return buffer.subarray(0, bytesRead)
  }

  /** Whether there is no room in it: what the VMM wrote last was dropped, for the most part. */
  async isFull(): Promise<boolean> {
    const { blocks } = await this.#file.stat()
    return this.#logFile === null && blocks * 512 >= spoolBytes
  }

  /** Give back the memory of what has been taken over, now and then. Positions stay what they are. */
  async release(position: number): Promise<void> {
    if (position === this.#punched || (position - this.#punched < punchBytes && !(await this.isFull()))) return
    const punched = runCommand(['fallocate', '--punch-hole', '--offset', '0', '--length', String(position), this.path])
    // not every file system of a data disk can do it
    await (this.#logFile === null ? punched : punched.catch(() => undefined))
    this.#punched = position
  }

  /** Let go of it; with `remove`, nothing is left of it. */
  async close({ remove }: { remove: boolean }): Promise<void> {
    await this.#file.close()
    if (remove && this.#logFile !== null) await rm(this.#logFile, { force: true })
  }
}

/**
 * A spool for a VMM that is about to start: the descriptor that it inherits. `mountPoint` is used for a moment; what an
 * agent that was killed in that moment left there is taken away.
 */
export async function makeSpool(instanceId: string, base: number, mountPoint: string): Promise<FileHandle> {
  await mkdir(mountPoint, { mode: 0o700 })
  await runCommand([
    'mount',
    '-t',
    'tmpfs',
    '-o',
    `size=${spoolBytes},nr_inodes=2,mode=0700`,
    'berth-serial',
    mountPoint,
  ])
  try {
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND
    return await open(join(mountPoint, `${instanceId}@${base}`), flags, 0o600)
  } finally {
    await unmount(mountPoint)
  }
}

/** Take a mount point away with the file system on it, which lives on while files of it are open. */
export async function unmount(mountPoint: string): Promise<void> {
  await runCommand(['umount', '--lazy', mountPoint])
  await rmdir(mountPoint)
}
