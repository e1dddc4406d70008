import { randomBytes } from 'node:crypto'
import { open, truncate } from 'node:fs/promises'
import { runCommand } from '../sys/run-command.ts'

/** Whether qemu-img is installed; says so where it is not, because the tests that need it are then skipped. */
export async function hasQemuImg(): Promise<boolean> {
  const found = await runCommand(['qemu-img', '--version']).then(
    () => true,
    () => false,
  )
  if (!found) console.warn('SKIPPED: these tests need qemu-img (apt-get install qemu-utils)')
  return found
}

/** A qcow2 of 4 MiB that holds 1 MiB of a pattern; those of a process differ though they have one size. */
export async function makeQcow2(path: string, ...more: readonly string[]): Promise<void> {
  pattern = (pattern % 255) + 1
  await runCommand(['qemu-img', 'create', '-q', '-f', 'qcow2', ...more, path, '4M'])
  await runCommand(['qemu-io', '-f', 'qcow2', '-c', `write -P ${pattern} 0 1M`, path])
}

let pattern = 0

/** A raw disk of `megabytes` MiB that begins with a boot sector and random bytes. */
export async function makeRaw(path: string, megabytes = 4): Promise<void> {
  const handle = await open(path, 'wx')
  try {
    const sector = randomBytes(512)
    sector.writeUInt16LE(0xaa55, 510)
    await handle.write(sector)
  } finally {
    await handle.close()
  }
  await truncate(path, megabytes * 1024 ** 2)
}
