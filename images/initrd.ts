import { Buffer } from 'node:buffer'
import { constants, gzipSync } from 'node:zlib'

/** One entry of an initrd. Directories must come before what is in them. */
export type InitrdEntry =
  | { kind: 'directory'; path: string }
  | { kind: 'file'; path: string; mode: number; content: Uint8Array }
  | { kind: 'link'; path: string; target: string }

/**
 * A cpio archive in the "newc" format, the one the kernel unpacks (Linux: Documentation/driver-api/early-userspace/
 * buffer-format.rst). Owned by root, times zero, so the same entries give the same bytes. Pure.
 */
export function renderCpio(entries: readonly InitrdEntry[]): Buffer {
  const parts = entries.flatMap((entry, index) => {
    const content = entryContent(entry)
    return record(entry.path, index + 1, entryMode(entry), content)
  })
  return Buffer.concat([...parts, ...record('TRAILER!!!', 0, 0, Buffer.alloc(0))])
}

/** A gzip-compressed initrd. The cloud kernel reads other formats too; gzip unpacks fast enough under emulation. */
export function renderInitrd(entries: readonly InitrdEntry[]): Buffer {
  return gzipSync(renderCpio(entries), { level: constants.Z_BEST_COMPRESSION })
}

function entryContent(entry: InitrdEntry): Uint8Array {
  if (entry.kind === 'file') return entry.content
  return Buffer.from(entry.kind === 'link' ? entry.target : '')
}

function entryMode(entry: InitrdEntry): number {
  if (entry.kind === 'directory') return 0o040755
  if (entry.kind === 'link') return 0o120777
  return 0o100000 | entry.mode
}

function record(path: string, inode: number, mode: number, content: Uint8Array): Buffer[] {
  const name = Buffer.from(`${path}\0`)
  const links = (mode & 0o170000) === 0o040000 ? 2 : 1
  // inode, mode, uid, gid, links, mtime, size, device and its rdev (two numbers each), name length, checksum
  const fields = [inode, mode, 0, 0, links, 0, content.length, 0, 0, 0, 0, name.length, 0]
  const header = Buffer.from(
    `070701${fields.map((field) => field.toString(16).toUpperCase().padStart(8, '0')).join('')}`,
  )
  return [header, name, padding(header.length + name.length), Buffer.from(content), padding(content.length)]
}

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4)
}
