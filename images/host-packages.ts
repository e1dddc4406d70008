import type { RecipeId } from './recipe.ts'

/** A Debian or Ubuntu package that a recipe needs on the machine it is built on. */
export interface HostPackage {
  name: string
  /** A program or file of the package; where it exists, the package need not be installed. */
  provides: string
  /** What the recipe needs it for. */
  reason: string
}

const everyRecipe: readonly HostPackage[] = [
  {
    name: 'debian-archive-keyring',
    provides: '/usr/share/keyrings/debian-archive-keyring.gpg',
    reason: "the keys that Debian's package lists are signed with",
  },
  { name: 'fdisk', provides: 'sfdisk', reason: 'writes the partition table of the image' },
  { name: 'e2fsprogs', provides: 'mke2fs', reason: 'makes the root file system of the image and fills it' },
  { name: 'qemu-utils', provides: 'qemu-img', reason: 'compresses the image' },
]

const microOnly: readonly HostPackage[] = [
  { name: 'kmod', provides: 'depmod', reason: "finds which of the guest kernel's modules need which" },
]

const debianOnly: readonly HostPackage[] = [
  { name: 'mmdebstrap', provides: 'mmdebstrap', reason: 'installs Debian into a directory' },
]

/**
 * What each recipe needs on the host beyond apt, dpkg, coreutils and util-linux. None of these starts a service or
 * touches the host's boot: kernel, busybox and GRUB of the image come from packages unpacked in the work directory.
 */
export const hostPackages: Readonly<Record<RecipeId, readonly HostPackage[]>> = {
  micro: [...everyRecipe, ...microOnly],
  'debian-12': [...everyRecipe, ...debianOnly],
  'debian-13': [...everyRecipe, ...debianOnly],
}
