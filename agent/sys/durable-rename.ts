import { open, rename } from 'node:fs/promises'
import { dirname } from 'node:path'

/**
 * Put a finished file in its place so that it is there whole or not at all, also after a power loss: its bytes are on
 * disk before it has the name, and the name is on disk when this returns.
 */
export async function renameDurably(partial: string, path: string): Promise<void> {
  await sync(partial)
  await rename(partial, path)
  await sync(dirname(path))
}

async function sync(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
