import { chmod, lstat, mkdir, readdir, readFile, readlink, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { DebianPackages } from './debian-packages.ts'
import { writeDisk } from './disk.ts'
import { type GuestFile, installFile, installGuestFiles } from './guest-files.ts'
import { type InitrdEntry, renderInitrd } from './initrd.ts'
import type { RecipeContext, RecipeResult } from './recipe.ts'

const suite = 'bookworm'
const diskMib = 64
const kernelPointer = 'linux-image-cloud-amd64'

const packageNames = [
  ...['busybox-static', 'dropbear-bin', 'e2fsprogs', 'fdisk', 'util-linux', 'grub-common', 'grub-pc-bin', 'libc6'],
  ...['libcrypt1', 'libtomcrypt1', 'libtommath1', 'libgmp10', 'zlib1g'], // dropbear
  ...['libext2fs2', 'libcom-err2'], // resize2fs
  ...['libfdisk1', 'libsmartcols1', 'libblkid1', 'libuuid1', 'libreadline8', 'libtinfo6'], // sfdisk, partx
  ...['libdevmapper1.02.1', 'liblzma5', 'libselinux1', 'libudev1', 'libpcre2-8-0'], // grub-mkimage
]

const programs = ['/usr/sbin/dropbear', '/usr/bin/dropbearkey', '/sbin/resize2fs', '/sbin/sfdisk', '/usr/bin/partx']
const initrdModules = ['virtio_pci', 'virtio_blk']
const rootModules = [
  ...['virtio_net', 'virtio_rng', 'virtio_console', 'af_packet', 'button', 'evdev', 'pvpanic_pci'],
  ...['isofs', 'vfat', 'nls_cp437', 'nls_ascii', 'nls_utf8'],
]
const initrdApplets = [...['sh', 'sleep', 'usleep', 'poweroff', 'mount', 'modprobe', 'findfs', 'switch_root', 'mkdir']]
const emptyDirectories = [
  ...['proc', 'sys', 'dev', 'run', 'tmp', 'mnt', 'home', 'bin', 'sbin', 'usr/bin', 'usr/sbin', 'etc/dropbear'],
  ...['root/.ssh', 'var/lib/berth', 'var/log', 'var/tmp', 'var/www', 'boot/grub', 'lib64'],
]

const guestDirectory = fileURLToPath(new URL('guest/micro/', import.meta.url))
const readyScript = fileURLToPath(import.meta.resolve('@berth/agent/guest/berth-ready'))

/** Where each file of `images/guest/micro/` goes in the guest, and its mode. */
const guestFiles: readonly GuestFile[] = [
  { from: 'inittab', to: 'etc/inittab', mode: 0o644 },
  { from: 'passwd', to: 'etc/passwd', mode: 0o644 },
  { from: 'group', to: 'etc/group', mode: 0o644 },
  { from: 'shadow', to: 'etc/shadow', mode: 0o600 },
  { from: 'profile', to: 'etc/profile', mode: 0o644 },
  { from: 'os-release', to: 'etc/os-release', mode: 0o644 },
  // busybox acpid runs this name when the power key is pressed.
  { from: 'power-button', to: 'etc/acpi/PWRF/00000080', mode: 0o755 },
  { from: 'bash', to: 'bin/bash', mode: 0o755 },
  { from: 'boot', to: 'usr/lib/berth/boot', mode: 0o755 },
  { from: 'first-boot', to: 'usr/lib/berth/first-boot', mode: 0o755 },
  { from: 'fetch-seed', to: 'usr/lib/berth/fetch-seed', mode: 0o755 },
  { from: 'network', to: 'usr/lib/berth/network', mode: 0o755 },
  { from: 'dhcp-event', to: 'usr/lib/berth/dhcp-event', mode: 0o755 },
  { from: 'shutdown', to: 'usr/lib/berth/shutdown', mode: 0o755 },
  { from: 'yaml.awk', to: 'usr/lib/berth/yaml.awk', mode: 0o644 },
  { from: 'grub.cfg', to: 'boot/grub/grub.cfg', mode: 0o644 },
]

/**
 * Build `micro`: Debian's cloud kernel, busybox and dropbear on a 64 MiB disk that boots as real cloud images do. The
 * kernel and every program come from Debian packages unpacked in the work directory; nothing is installed on the host.
 */
export async function buildMicro(context: RecipeContext): Promise<RecipeResult> {
  const { workDirectory, signal } = context
  const tree = join(workDirectory, 'packages-root')
  const root = join(workDirectory, 'root')

  context.step('fetch package lists', `Debian ${suite} from ${context.mirrors.main}`)
  const packages = await DebianPackages.open(join(workDirectory, 'apt'), context.mirrors, suite, signal)
  const kernel = (await packages.dependencies(kernelPointer)).find((name) => /^linux-image-.*-cloud-amd64$/.test(name))
  if (kernel === undefined) throw new Error(`${kernelPointer} names no kernel package in ${suite}`)

  context.step('download and unpack packages', `${packageNames.length + 1}, the largest ${kernel}`)
  await packages.extract([kernel, ...packageNames], tree)
  const kernelVersion = kernel.slice('linux-image-'.length)

  context.step('assemble the root file system', kernelVersion)
  await assembleRoot(root, tree, kernelVersion, signal)
  const initrd = renderInitrd(await initrdEntries(root))
  await writeFile(join(root, 'boot/initrd.img'), initrd)

  context.step('write the disk', `${diskMib} MiB`)
  const rawDiskPath = join(workDirectory, 'disk.raw')
  const embeddedConfigPath = join(guestDirectory, 'grub.cfg')
  await writeDisk({ rootDirectory: root, grubTree: tree, embeddedConfigPath, diskMib, diskPath: rawDiskPath, signal })
  return {
    rawDiskPath,
    about: {
      id: 'micro',
      title: 'Berth micro (busybox, dropbear, Debian 12 kernel)',
      min_disk_gb: 1,
      architecture: 'x86_64',
      default_user: 'root',
      network: 'static',
      origin: 'built',
      source_url: '',
    },
  }
}

async function assembleRoot(root: string, tree: string, kernelVersion: string, signal: AbortSignal): Promise<void> {
  await mkdir(root, { mode: 0o755 })
  for (const directory of emptyDirectories) await mkdir(join(root, directory), { recursive: true })
  await chmod(join(root, 'tmp'), 0o1777)
  await chmod(join(root, 'var/tmp'), 0o1777)
  await chmod(join(root, 'root'), 0o700)
  await chmod(join(root, 'root/.ssh'), 0o700)
  await symlink('../proc/mounts', join(root, 'etc/mtab'))

  await installFile(join(tree, 'bin/busybox'), join(root, 'bin/busybox'), 0o755)
  for (const program of programs) await installProgram(tree, root, program, signal)
  await installGuestFiles(guestDirectory, root, guestFiles)
  await installFile(readyScript, join(root, 'usr/lib/berth/berth-ready'), 0o755)
  await writeFile(join(root, 'etc/shells'), '/bin/sh\n')
  // Last, so that an applet never takes the place of a real program.
  await linkApplets(root, signal)
  await installFile(join(tree, `boot/vmlinuz-${kernelVersion}`), join(root, 'boot/vmlinuz'), 0o644)
  await installModules(tree, root, kernelVersion, [...initrdModules, ...rootModules], signal)
}

/** Copy a program and the libraries that the tree's own dynamic loader finds for it. */
async function installProgram(tree: string, root: string, program: string, signal: AbortSignal): Promise<void> {
  await installFile(join(tree, program), join(root, program), 0o755)
  const { stdout } = await runCommand(['chroot', tree, '/lib64/ld-linux-x86-64.so.2', '--list', program], { signal })
  for (const library of librariesListed(stdout, program)) {
    await installFile(await resolveInTree(tree, library), join(root, library), 0o755)
  }
}

/** The absolute paths in the output of `ld.so --list`. Throws when a library of the program is missing. Pure. */
export function librariesListed(output: string, program: string): string[] {
  const missing = /^\s*(\S+) => not found$/m.exec(output)
  if (missing !== null) throw new Error(`${program} needs ${missing[1]}, which no downloaded package has`)
  return [...output.matchAll(/^\s*(?:\S+ => )?(\/\S+) \(0x[0-9a-f]+\)$/gm)].flatMap((match) => match[1] ?? [])
}

/** The real file behind a path of the tree; an absolute link there means a path in the tree, not on the host. */
async function resolveInTree(tree: string, path: string): Promise<string> {
  for (let links = 0, current = path; links < 8; links++) {
    const inTree = join(tree, current)
    if (!(await lstat(inTree)).isSymbolicLink()) return inTree
    const target = await readlink(inTree)
    current = target.startsWith('/') ? target : join(dirname(current), target)
  }
  throw new Error(`${path} is a chain of more than 8 links`)
}

async function linkApplets(root: string, signal: AbortSignal): Promise<void> {
  const { stdout } = await runCommand(['chroot', root, '/bin/busybox', '--list-full'], { signal })
  for (const applet of ['sbin/init', ...stdout.split('\n').filter((line) => line !== '')]) {
    const path = join(root, applet)
    await mkdir(dirname(path), { recursive: true })
    await symlink('/bin/busybox', path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  }
}

/** Copy the named kernel modules with what they need, uncompressed, and write their dependency list anew. */
async function installModules(
  tree: string,
  root: string,
  kernelVersion: string,
  names: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const base = join('lib/modules', kernelVersion)
  await runCommand(['depmod', '-b', tree, kernelVersion], { signal, timeoutMs: 60_000 })
  const dependencies = parseModuleDependencies(await readFile(join(tree, base, 'modules.dep'), 'utf8'))
  for (const path of modulePaths(dependencies, names)) {
    const target = join(root, base, path)
    await installFile(join(tree, base, path), target, 0o644)
    if (target.endsWith('.xz')) await runCommand(['xz', '--decompress', target], { signal })
    if (target.endsWith('.zst')) await runCommand(['zstd', '--decompress', '--quiet', '--rm', target], { signal })
  }
  for (const list of ['modules.order', 'modules.builtin', 'modules.builtin.modinfo']) {
    await installFile(join(tree, base, list), join(root, base, list), 0o644)
  }
  await runCommand(['depmod', '-b', root, kernelVersion], { signal, timeoutMs: 60_000 })
}

/** The lines `path: path path …` of a modules.dep, by the first path. Pure. */
export function parseModuleDependencies(text: string): Map<string, string[]> {
  const entries = text.split('\n').flatMap((line) => {
    const colon = line.indexOf(':')
    if (colon < 0) return []
    return [
      [
        line.slice(0, colon),
        line
          .slice(colon + 1)
          .split(' ')
          .filter((path) => path !== ''),
      ] as const,
    ]
  })
  return new Map(entries.map(([path, needed]) => [path, [...needed]]))
}

/**
 * The files of the named modules and all they depend on, each once. A name that has no file is taken to be built into
 * the kernel. Pure.
 */
export function modulePaths(dependencies: ReadonlyMap<string, readonly string[]>, names: readonly string[]): string[] {
  const byName = new Map([...dependencies.keys()].map((path) => [moduleName(path), path]))
  const paths = names.flatMap((name) => {
    const path = byName.get(name)
    return path === undefined ? [] : [path, ...(dependencies.get(path) ?? [])]
  })
  return [...new Set(paths)]
}

function moduleName(path: string): string {
  const file = path.slice(path.lastIndexOf('/') + 1)
  return file.replace(/\.ko(\.[a-z0-9]+)?$/, '').replaceAll('-', '_')
}

/** busybox and the disk driver: just enough to mount the root file system. */
async function initrdEntries(root: string): Promise<InitrdEntry[]> {
  const moduleBase = 'lib/modules'
  const [kernelVersion] = await readdir(join(root, moduleBase))
  if (kernelVersion === undefined) throw new Error('the root file system has no kernel modules')
  const base = join(moduleBase, kernelVersion)
  const list = await readFile(join(root, base, 'modules.dep'), 'utf8')
  const paths = modulePaths(parseModuleDependencies(list), initrdModules)
  const file = async (path: string, from: string, mode: number): Promise<InitrdEntry> => {
    return { kind: 'file', path, mode, content: await readFile(from) }
  }
  const files = [
    await file('init', join(guestDirectory, 'init'), 0o755),
    await file('bin/busybox', join(root, 'bin/busybox'), 0o755),
    await file(join(base, 'modules.dep'), join(root, base, 'modules.dep'), 0o644),
    ...(await Promise.all(paths.map((path) => file(join(base, path), join(root, base, path), 0o644)))),
  ]
  const links = initrdApplets.map((applet): InitrdEntry => ({ kind: 'link', path: `bin/${applet}`, target: 'busybox' }))
  const directories = new Set(['dev', 'proc', 'sys', 'newroot'])
  for (const entry of files) {
    const segments = dirname(entry.path)
      .split('/')
      .filter((segment) => segment !== '.')
    for (let depth = 1; depth <= segments.length; depth++) directories.add(segments.slice(0, depth).join('/'))
  }
  return [...[...directories].sort().map((path): InitrdEntry => ({ kind: 'directory', path })), ...files, ...links]
}
