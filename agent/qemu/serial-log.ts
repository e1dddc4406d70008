import { watch } from 'node:fs'
import { open, stat } from 'node:fs/promises'

/** Size above which the log is cut, and what is kept of it then. */
const capBytes = 16 * 1024 * 1024
const keptBytes = 1024 * 1024

/** Up to `maxBytes` of a file from a position; empty when it does not reach so far or is not there. */
export async function readFrom(path: string, position: number, maxBytes: number): Promise<Buffer> {
  const file = await openIfThere(path, 'r')
  if (file === null) return Buffer.alloc(0)
  try {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(maxBytes), 0, maxBytes, position)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}

/** Bytes in a file; 0 when it is not there. */
export async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  )
}

/**
 * Cut a log that has grown beyond the cap to its end; gives how many bytes went from its front. The writer appends
 * (O_APPEND), so it goes on behind what is kept; bytes it writes in between the two calls are lost.
 */
export async function trim(path: string): Promise<number> {
  const file = await openIfThere(path, 'r+')
  if (file === null) return 0
  try {
    const { size } = await file.stat()
    if (size <= capBytes) return 0
    const { buffer, bytesRead } = await file.read(Buffer.alloc(keptBytes), 0, keptBytes, size - keptBytes)
    await file.truncate(0)
    await file.write(buffer, 0, bytesRead, 0)
    return size - bytesRead
  } finally {
    await file.close()
  }
}

/** Call back when a file changes; gives the function that ends it. Does nothing when it cannot be watched. */
export function onGrowth(path: string, onOutput: () => void): () => void {
  try {
    const watcher = watch(path, { persistent: false }, onOutput)
    watcher.on('error', () => watcher.close())
    return () => watcher.close()
  } catch {
    return () => {}
  }
}

async function openIfThere(path: string, flags: 'r' | 'r+') {
  try {
    return await open(path, flags)
  } catch (error) {
    if (error instanceof Error && Reflect.get(error, 'code') === 'ENOENT') return null
    throw error
  }
}
