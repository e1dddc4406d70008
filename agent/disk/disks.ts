import { link, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { HostError } from '../host-driver.ts'
import { renameDurably } from '../sys/durable-rename.ts'
import { runCommand } from '../sys/run-command.ts'

/** Files of an instance in its directory. */
export const diskFiles = (directory: string) => ({
  disk: join(directory, 'disk.qcow2'),
  base: join(directory, 'base.qcow2'),
  seed: join(directory, 'seed.img'),
  serialLog: join(directory, 'serial.log'),
  qemuLog: join(directory, 'qemu.log'),
})

/**
 * Have the root disk of an instance: a qcow2 overlay of `diskGb` GiB on the image. The image is hard-linked beside it,
 * so the instance keeps the very bytes it was made from when the image is replaced (docs/decisions/0003). The image
 * itself is not opened. A disk that exists is left as it is. Throws HostError disk_failed.
 */
export async function ensureOverlay(
  directory: string,
  imageFile: string,
  diskGb: number,
  options: { signal?: AbortSignal } = {},
): Promise<void> {
  const files = diskFiles(directory)
  if (await exists(files.disk)) return
  const partial = `${files.disk}.partial`
  try {
    await rm(partial, { force: true })
    await rm(files.base, { force: true }) // without a disk nothing depends on it
    await link(imageFile, files.base)
    // -u: this runs as root, and what is in the image was written by guests and strangers. QEMU opens it, confined.
    const backing = ['-u', '-F', 'qcow2', '-b', 'base.qcow2']
    const argv = ['qemu-img', 'create', '-q', '-f', 'qcow2', ...backing, 'disk.qcow2.partial', `${diskGb}G`]
    await runCommand(argv, { cwd: directory, ...options })
    await renameDurably(partial, files.disk)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new HostError('disk_failed', `the disk could not be made: ${why}`, {
      cause: error,
      retryable: true,
      tryAgain: true,
    })
  }
}

export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}
