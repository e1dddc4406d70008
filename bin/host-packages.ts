import { spawnSync } from 'node:child_process'
import { access } from 'node:fs/promises'
import { delimiter, isAbsolute, join } from 'node:path'
import type { HostPackage } from '@berth/images/host-packages.ts'

/** What running instances needs on a host, besides Node and what every Debian or Ubuntu has. */
export const runtimePackages: readonly HostPackage[] = [
  { name: 'qemu-system-x86', provides: 'qemu-system-x86_64', reason: 'runs the instances' },
  { name: 'qemu-utils', provides: 'qemu-img', reason: 'makes and checks their disks' },
  { name: 'dosfstools', provides: 'mkfs.vfat', reason: 'makes the disk that tells a guest its name, keys and address' },
  { name: 'mtools', provides: 'mcopy', reason: 'fills that disk' },
  { name: 'iproute2', provides: 'ip', reason: 'makes the networks of instances' },
  { name: 'nftables', provides: 'nft', reason: 'keeps instances to their own addresses' },
  { name: 'conntrack', provides: 'conntrack', reason: 'forgets the connections of deleted instances' },
  {
    name: 'dnsmasq-base',
    provides: 'dnsmasq',
    reason: 'answers DHCP and DNS inside a network (no service is started)',
  },
  {
    name: 'dnsmasq-utils',
    provides: 'dhcp_release',
    reason: 'frees the address of a deleted instance for the next one',
  },
  { name: 'iputils-arping', provides: 'arping', reason: 'tells the network at which host a public address is' },
  { name: 'procps', provides: 'sysctl', reason: 'sets the forwarding rules of a network' },
  { name: 'openssh-client', provides: 'ssh', reason: 'makes the example key and logs in to instances' },
]

/** What the tests need besides. */
export const testPackages: readonly HostPackage[] = [
  { name: 'curl', provides: 'curl', reason: "runs the documentation's examples" },
  { name: 'jq', provides: 'jq', reason: "runs the documentation's examples" },
  { name: 'python3', provides: 'python3', reason: 'sends and hears the packets of the network tests' },
]

/** Those of the packages whose program or file is not there. */
export async function missingPackages(packages: readonly HostPackage[]): Promise<HostPackage[]> {
  const present = await Promise.all(packages.map((each) => isThere(each.provides)))
  const names = new Set<string>()
  return packages.filter((each, index) => {
    if (present[index] || names.has(each.name)) return false
    names.add(each.name)
    return true
  })
}

/**
 * Have packages on this machine: says what is missing and what for and, as root, installs it with apt-get, whose output
 * goes to standard error. Gives what is missing still, because only root can install it; empty when all are there.
 * Throws when apt-get fails or does not bring a program.
 */
export async function ensurePackages(
  packages: readonly HostPackage[],
  { say, isRoot = process.getuid?.() === 0 }: { say: (line: string) => void; isRoot?: boolean },
): Promise<readonly HostPackage[]> {
  const missing = await missingPackages(packages)
  if (missing.length === 0) return []
  say('Berth needs these system packages:\n')
  for (const { name, reason } of missing) say(`  ${name.padEnd(24)} ${reason}`)
  if (!isRoot) {
    say(`\nOnly root can install them. Run this, then start again:\n\n  ${renderInstallCommand(missing)}\n`)
    return missing
  }
  say('\nInstalling them with apt-get ...')
  apt(['apt-get', 'update', '-q'])
  apt(installArgv(missing))
  const still = await missingPackages(missing)
  if (still.length > 0) throw new Error(`apt-get did not bring ${still.map((each) => each.provides).join(', ')}`)
  return []
}

function apt(argv: readonly string[]): void {
  const [command = '', ...args] = argv
  const lockWait = ['-o', 'DPkg::Lock::Timeout=300'] // another one may be installing just now
  const { status, error } = spawnSync(command, [...lockWait, ...args], {
    stdio: ['ignore', 2, 2],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  })
  if (error !== undefined) throw new Error(`${argv.join(' ')} cannot be run: ${error.message}`, { cause: error })
  if (status !== 0) throw new Error(`${argv.join(' ')} failed with ${status}`)
}

function installArgv(packages: readonly HostPackage[]): string[] {
  return ['apt-get', 'install', '-y', '--no-install-recommends', ...packages.map((each) => each.name)]
}

/** The command that installs packages, as one line for a person's shell. */
export function renderInstallCommand(packages: readonly HostPackage[]): string {
  return `sudo apt-get update && sudo ${installArgv(packages).join(' ')}`
}

async function isThere(program: string): Promise<boolean> {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin']
  const candidates = isAbsolute(program) ? [program] : folders.map((folder) => join(folder, program))
  for (const candidate of candidates) {
    const found = await access(candidate).then(
      () => true,
      () => false,
    )
    if (found) return true
  }
  return false
}
