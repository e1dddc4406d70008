import { cp, mkdir, readdir, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { renderSources } from './debian-packages.ts'
import { writeDisk } from './disk.ts'
import { type GuestFile, installFile, installGuestFiles } from './guest-files.ts'
import { mmdebstrapLeftovers, runMmdebstrap } from './mmdebstrap.ts'
import type { Recipe, RecipeContext, RecipeResult } from './recipe.ts'

interface DebianRelease {
  id: 'debian-12' | 'debian-13'
  suite: string
  title: string
}

const diskMib = 1536
const archive = { main: 'http://deb.debian.org/debian', security: 'http://deb.debian.org/debian-security' }

const packageNames = [
  ...['linux-image-cloud-amd64', 'initramfs-tools', 'zstd', 'grub-pc-bin', 'grub2-common'],
  ...['systemd-sysv', 'systemd-resolved', 'systemd-timesyncd', 'udev', 'dbus', 'libpam-systemd'],
  ...['cloud-init', 'cloud-guest-utils', 'fdisk', 'e2fsprogs', 'openssh-server', 'qemu-guest-agent', 'sudo'],
  // What cloud-config documents ask for: time zones, locales, package sources with their keys.
  ...['tzdata', 'locales', 'gpg', 'ca-certificates'],
  ...['curl', 'iproute2', 'iputils-ping', 'netbase', 'kmod', 'procps', 'less', 'nano'],
]

const guestDirectory = fileURLToPath(new URL('guest/cloud/', import.meta.url))
const agentGuestDirectory = dirname(fileURLToPath(import.meta.resolve('@berth/agent/guest/berth-ready')))

const guestFiles: readonly GuestFile[] = [
  { from: 'grub.cfg', to: 'boot/grub/grub.cfg', mode: 0o644 },
  { from: 'default-grub.cfg', to: 'etc/default/grub.d/50-berth.cfg', mode: 0o644 },
  { from: 'fstab', to: 'etc/fstab', mode: 0o644 },
  { from: 'locale', to: 'etc/default/locale', mode: 0o644 },
  { from: '90_berth.cfg', to: 'etc/cloud/cloud.cfg.d/90_berth.cfg', mode: 0o644 },
]

const agentGuestFiles: readonly GuestFile[] = [
  { from: 'berth-ready', to: 'usr/lib/berth/berth-ready', mode: 0o755 },
  { from: 'berth-ready.service', to: 'etc/systemd/system/berth-ready.service', mode: 0o644 },
]

const enabledUnits = ['systemd-networkd.service', 'systemd-resolved.service', 'ssh.service', 'berth-ready.service']

/** Of the build machine or of this one build; each guest makes its own. */
const unwanted = [
  ...mmdebstrapLeftovers,
  ...['var/lib/dbus/machine-id', 'etc/resolv.conf', 'var/log/apt', 'var/log/dpkg.log', 'var/log/bootstrap.log'],
  ...['var/log/alternatives.log', 'var/cache/apt/pkgcache.bin', 'var/cache/apt/srcpkgcache.bin'],
]

/** Build `debian-12`: a cloud image with cloud-init 22.4, made as the official ones are laid out. */
export const buildDebian12: Recipe = (context) => {
  return buildDebian(context, { id: 'debian-12', suite: 'bookworm', title: 'Debian 12 (bookworm)' })
}

/** Build `debian-13`: as debian-12, with cloud-init 25.1. */
export const buildDebian13: Recipe = (context) => {
  return buildDebian(context, { id: 'debian-13', suite: 'trixie', title: 'Debian 13 (trixie)' })
}

async function buildDebian(context: RecipeContext, release: DebianRelease): Promise<RecipeResult> {
  const { workDirectory, mirrors, signal } = context
  const root = join(workDirectory, 'root')
  const essentialHookPath = join(workDirectory, 'essential-hook')
  await installFile(join(guestDirectory, 'essential-hook'), essentialHookPath, 0o755)

  context.step('install packages', `Debian ${release.suite} from ${mirrors.main}`)
  await runMmdebstrap({
    ...{ suite: release.suite, root, packages: packageNames, mirrors, essentialHookPath, signal },
    onProgress: (line) => context.step('install packages', line),
  })

  context.step('configure the guest')
  await configure(root, release, signal)

  context.step('write the disk', `${diskMib} MiB`)
  const rawDiskPath = join(workDirectory, 'disk.raw')
  await writeDisk({ rootDirectory: root, grubTree: root, diskMib, diskPath: rawDiskPath, signal })
  return {
    rawDiskPath,
    about: {
      id: release.id,
      title: release.title,
      min_disk_gb: 2,
      architecture: 'x86_64',
      default_user: 'debian',
      network: 'static',
      origin: 'built',
      source_url: '',
    },
  }
}

async function configure(root: string, release: DebianRelease, signal: AbortSignal): Promise<void> {
  for (const path of unwanted) await rm(join(root, path), { recursive: true, force: true })
  await removeMatching(join(root, 'etc/ssh'), (name) => name.startsWith('ssh_host_'))
  await removeMatching(join(root, 'var/lib/apt/lists'), () => true)
  // Empty, not absent: systemd then makes a new id at the first boot without taking it for a factory reset.
  await truncate(join(root, 'etc/machine-id'), 0)
  await rm(join(root, 'etc/hostname'), { force: true })
  await writeFile(join(root, 'etc/hostname'), 'localhost\n')
  await writeFile(join(root, 'etc/apt/sources.list'), `${renderSources(archive, release.suite).join('\n')}\n`)
  await removeMatching(join(root, 'etc/apt/sources.list.d'), (name) => name.startsWith('0000'))
  await symlink('../run/systemd/resolve/stub-resolv.conf', join(root, 'etc/resolv.conf'))
  await installGuestFiles(guestDirectory, root, guestFiles)
  await installGuestFiles(agentGuestDirectory, root, agentGuestFiles)
  await runCommand(['chroot', root, 'systemctl', 'enable', ...enabledUnits], { signal })
  await mkdir(join(root, 'boot/grub/i386-pc'), { recursive: true })
  await cp(join(root, 'usr/lib/grub/i386-pc'), join(root, 'boot/grub/i386-pc'), { recursive: true })
}

async function removeMatching(directory: string, matches: (name: string) => boolean): Promise<void> {
  for (const name of (await readdir(directory)).filter(matches)) await rm(join(directory, name), { recursive: true })
}
