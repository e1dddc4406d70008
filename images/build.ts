import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { publishImage } from '@berth/agent/image/files.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import type { HostImage } from '@berth/contract/images/images.ts'
import { buildDebian12, buildDebian13 } from './debian.ts'
import { debianMirrors } from './debian-packages.ts'
import { writeCompressedQcow2 } from './disk.ts'
import { buildMicro } from './micro.ts'
import type { Recipe, RecipeId } from './recipe.ts'

/** A step of a build has begun; `seconds` is the time since the build began. */
export interface BuildEvent {
  step: string
  detail?: string
  seconds: number
}

export interface BuildOptions {
  /** Where the finished image goes: `<data>/images`. Made when absent. */
  imagesDirectory: string
  /** Where a directory for the build is made, with room for twice the image. Default: TMPDIR, else /var/tmp. */
  workDirectory?: string
  /** A Debian mirror, such as http://deb.debian.org/debian. Default: the variable BERTH_DEBIAN_MIRROR, else that. */
  mirror?: string
  signal?: AbortSignal
  onProgress: (event: BuildEvent) => void
}

const recipes: Record<RecipeId, Recipe> = {
  micro: buildMicro,
  'debian-12': buildDebian12,
  'debian-13': buildDebian13,
}

/** Whether there is a recipe of this name. */
export function isRecipeId(id: string): id is RecipeId {
  return Object.hasOwn(recipes, id)
}

/**
 * Build an image and publish it in the images directory under the recipe's id, in place of an earlier one. Needs root
 * (it runs programs of the guest in a chroot). Leaves nothing but the image, whether it succeeds, fails or is aborted.
 */
export async function buildImage(recipeId: RecipeId, options: BuildOptions): Promise<HostImage> {
  if (process.getuid?.() !== 0) throw new Error('building an image needs root')
  if (process.arch !== 'x64') throw new Error(`images are x86_64 and cannot be built on ${process.arch}`)
  const signal = options.signal ?? new AbortController().signal
  signal.throwIfAborted()
  const started = performance.now()
  const step = (name: string, detail?: string) => {
    const seconds = Math.round((performance.now() - started) / 100) / 10
    options.onProgress({ step: name, ...(detail === undefined ? {} : { detail }), seconds })
  }
  const imagesDirectory = resolve(options.imagesDirectory)
  await mkdir(imagesDirectory, { recursive: true, mode: 0o700 })
  const parent = options.workDirectory ?? process.env.TMPDIR ?? '/var/tmp'
  await mkdir(parent, { recursive: true })
  const workDirectory = await mkdtemp(join(parent, `berth-image-${recipeId}-`))
  const partialPath = join(imagesDirectory, `${recipeId}.qcow2.build-${randomBytes(6).toString('hex')}.partial`)
  try {
    const context = { workDirectory, mirrors: debianMirrors(options.mirror), signal, step }
    const { rawDiskPath, about } = await recipes[recipeId](context)
    step('compress')
    await writeCompressedQcow2(rawDiskPath, partialPath, signal)
    const image = await publishImage(imagesDirectory, partialPath, { ...about, firmware: 'bios' }, { signal })
    step('done', `${Math.round(image.size_bytes / 1024 / 1024)} MiB`)
    return image
  } catch (error) {
    await rm(partialPath, { force: true })
    signal.throwIfAborted()
    throw new Error(`building image ${recipeId} failed: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    })
  } finally {
    await removeWorkDirectory(workDirectory)
  }
}

/**
 * Remove a build's directory, but never through a mount: a tool killed half-way could have left the host's /dev bound
 * into the tree, and deleting there would delete on the host.
 */
async function removeWorkDirectory(directory: string): Promise<void> {
  for (const mountPoint of mountsBelow(await readFile('/proc/self/mountinfo', 'utf8'), directory).reverse()) {
    await runCommand(['umount', '--lazy', mountPoint])
  }
  await rm(directory, { recursive: true, force: true })
}

/** The mount points at or below a directory, in mount order, from the text of /proc/self/mountinfo. Pure. */
export function mountsBelow(mountinfo: string, directory: string): string[] {
  return mountinfo.split('\n').flatMap((line) => {
    const field = line.split(' ')[4]
    if (field === undefined) return []
    const path = field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
    return path === directory || path.startsWith(`${directory}/`) ? [path] : []
  })
}
