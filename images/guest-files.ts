import { chmod, copyFile, mkdir, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/** A file of the guest that stands in this repository: where it is, where in the guest it goes, and its mode there. */
export interface GuestFile {
  from: string
  to: string
  mode: number
}

/** Copy a file to `to`, making the directories it needs, with exactly this mode whatever the umask. */
export async function installFile(from: string, to: string, mode: number): Promise<void> {
  await mkdir(dirname(to), { recursive: true })
  // A link in the way would be written through, possibly to a file of the host.
  await rm(to, { force: true })
  await copyFile(from, to)
  await chmod(to, mode)
}

/** Install files of `directory` into a guest's root. */
export async function installGuestFiles(directory: string, root: string, files: readonly GuestFile[]): Promise<void> {
  for (const file of files) await installFile(join(directory, file.from), join(root, file.to), file.mode)
}
