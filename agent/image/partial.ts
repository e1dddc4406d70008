import { constants } from 'node:fs'
import { type FileHandle, lstat, open, readFile, rename, rm, writeFile } from 'node:fs/promises'
import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import { ignoreMissing } from './files.ts'

/** The note `<partial>.meta`: of which file, in which version, the partial is the beginning. */
const PartialNote = Type.Object({
  url: Type.String(),
  /** For If-Range (RFC 9110, 13.1.5): a strong ETag or a Last-Modified date. */
  validator: Type.String({ minLength: 1 }),
  totalBytes: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()]),
})
export type PartialNote = Static<typeof PartialNote>

/** Where the note about a partial file is. */
export function notePath(partial: string): string {
  return `${partial}.meta`
}

/** Remove a partial file and its note; fine when there is none. */
export async function discardPartial(partial: string): Promise<void> {
  // The file first: a note alone is harmless.
  await rm(partial, { force: true })
  await rm(notePath(partial), { force: true })
}

/** What an earlier attempt, perhaps of a process that was killed, left of `url`; null when it cannot be continued. */
export async function findPartial(
  partial: string,
  url: string,
): Promise<{ note: PartialNote; sizeBytes: number } | null> {
  const file = await lstat(partial).catch(ignoreMissing)
  const text = await readFile(notePath(partial), 'utf8').catch(ignoreMissing)
  if (file === undefined || text === undefined || !file.isFile() || file.size === 0) return null
  const note = parseNote(text)
  if (note === null || note.url !== url) return null
  if (note.totalBytes !== null && file.size > note.totalBytes) return null
  return { note, sizeBytes: file.size }
}

/** Open the partial to write on after `sizeBytes`. */
export function continuePartial(partial: string): Promise<FileHandle> {
  return open(partial, constants.O_WRONLY | constants.O_NOFOLLOW)
}

/**
 * Open the partial empty. `note` null means that what follows cannot be continued: the server names no version. The old
 * note goes before the old bytes and the new one comes before the new bytes, so a crash never pairs them wrongly.
 */
export async function beginPartial(partial: string, note: PartialNote | null): Promise<FileHandle> {
  await rm(notePath(partial), { force: true })
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW
  const handle = await open(partial, flags, 0o600)
  try {
    if (note !== null) {
      const draft = `${notePath(partial)}.partial`
      await writeFile(draft, JSON.stringify(note), { mode: 0o600 })
      await rename(draft, notePath(partial))
    }
    return handle
  } catch (error) {
    await handle.close()
    throw error
  }
}

/** Write all of `chunk` at `position`; a full disk shows as ENOSPC after a short write. */
export async function writeAt(handle: FileHandle, chunk: Buffer, position: number): Promise<void> {
  let written = 0
  while (written < chunk.length) {
    const result = await handle.write(chunk, written, chunk.length - written, position + written)
    written += result.bytesWritten
  }
}

function parseNote(text: string): PartialNote | null {
  try {
    const document: unknown = JSON.parse(text)
    return Value.Check(PartialNote, document) ? document : null
  } catch {
    return null
  }
}
