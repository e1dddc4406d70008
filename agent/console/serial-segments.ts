import { type FileHandle, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'

/** Bytes of a segment after which the next one begins, and of all segments of an instance together. */
const segmentBytes = 4 * 1024 * 1024
const keptBytes = 16 * 1024 * 1024

/** Most segments of an instance, however short they are. */
const mostSegments = 16

interface Segment {
  /** Position of its first byte, in bytes since the instance was created. */
  start: number
  /** Where in the VMM's spool that byte was. Negative when it begins with a note of ours that long. */
  source: number
  size: number
}

/**
 * The serial output of an instance as the agent keeps it: files `serial-<start>-<source>.log`, of which only the last one
 * grows. Their names say where in the instance's output and in the VMM's spool they begin, so what was taken over is
 * known exactly from the files alone, at whatever line an agent was killed. The oldest go when all are more than 16 MiB.
 */
export class SerialSegments {
  readonly #directory: string
  #segments: Segment[] = []

  private constructor(directory: string) {
    this.#directory = directory
  }

  /** The segments in a directory; none when it is not there. */
  static async open(directory: string): Promise<SerialSegments> {
    const segments = new SerialSegments(directory)
    for (const name of await readdir(directory).catch(() => [])) {
      const [, start, source] = /^serial-(\d+)-(-?\d+)\.log$/.exec(name) ?? []
      if (start === undefined) continue
      const { size } = await stat(join(directory, name))
      segments.#segments.push({ start: Number(start), source: Number(source), size })
    }
    segments.#segments.sort((a, b) => a.start - b.start || a.size - b.size)
    return segments
  }

  /** Position behind the last byte. */
  get end(): number {
    const last = this.#segments.at(-1)
    return last === undefined ? 0 : last.start + last.size
  }

  /** How far a spool has been taken over whose first byte stands at `base`; null when nothing of it has been yet. */
  takenOf(base: number): number | null {
    const last = this.#segments.at(-1)
    return last === undefined || last.start < base ? null : last.source + last.size
  }

  /** Begin a segment at a position that is not before the end, with a note of ours in front of what comes from `source`. */
  async begin(start: number, source: number, note = ''): Promise<void> {
    const bytes = Buffer.from(note)
    const segment = { start, source: source - bytes.length, size: bytes.length }
    const partial = join(this.#directory, 'serial.partial')
    const file = await open(partial, 'w', 0o600)
    try {
      await file.writeFile(bytes)
    } finally {
      await file.close()
    }
    await rename(partial, this.#path(segment))
    const last = this.#segments.at(-1)
    if (last?.start === start) {
      this.#segments.pop() // nothing is in it
      if (last.source !== segment.source) await rm(this.#path(last), { force: true })
    }
    this.#segments.push(segment)
    await this.#dropOldest()
  }

  /** Add bytes that follow in the spool. What could be written before an error counts. */
  async append(data: Buffer): Promise<void> {
    for (let at = 0; at < data.length; ) {
      const full = this.#segments.at(-1)
      if (full !== undefined && full.size >= segmentBytes) await this.begin(this.end, full.source + full.size)
      const last = this.#segments.at(-1)
      if (last === undefined) throw new Error('the serial log has no segment yet')
      const piece = data.subarray(at, at + segmentBytes - last.size)
      last.size += await this.#write(this.#path(last), piece)
      at += piece.length
    }
  }

  /** Up to `maxBytes` from a position on, or from where there is something again. */
  async read(position: number, maxBytes: number): Promise<{ offset: number; data: Buffer }> {
    const segment = this.#segments.find(({ start, size }) => position < start + size)
    if (segment === undefined) return { offset: position, data: Buffer.alloc(0) }
    const offset = Math.max(position, segment.start)
    const bytes = Math.min(maxBytes, segment.start + segment.size - offset)
    return { offset, data: await readFrom(this.#path(segment), offset - segment.start, bytes) }
  }

  async #write(path: string, data: Buffer): Promise<number> {
    const file = await open(path, 'a', 0o600)
    try {
      await writeAll(file, data)
      return data.length
    } catch (error) {
      const last = this.#segments.at(-1)
      if (last !== undefined) last.size = (await file.stat()).size
      throw error
    } finally {
      await file.close()
    }
  }

  async #dropOldest(): Promise<void> {
    const total = () => this.#segments.reduce((sum, { size }) => sum + size, 0)
    while (this.#segments.length > mostSegments || total() > keptBytes - segmentBytes) {
      const oldest = this.#segments.shift()
      if (oldest !== undefined) await rm(this.#path(oldest), { force: true })
    }
  }

  #path({ start, source }: Segment): string {
    return join(this.#directory, `serial-${start}-${source}.log`)
  }
}

/** Up to `maxBytes` of a file from a position; empty when it does not reach so far or is not there. */
export async function readFrom(path: string, position: number, maxBytes: number): Promise<Buffer> {
  const file = await open(path, 'r').catch((error) => {
    if (Reflect.get(Object(error), 'code') === 'ENOENT') return null
    throw error
  })
  if (file === null) return Buffer.alloc(0)
  try {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(maxBytes), 0, maxBytes, position)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}

async function writeAll(file: FileHandle, data: Buffer): Promise<void> {
  for (let at = 0; at < data.length; ) at += (await file.write(data, at)).bytesWritten
}
