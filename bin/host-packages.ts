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

/** The command that installs packages, to run or to show. */
export function installArgv(packages: readonly HostPackage[]): string[] {
  return ['apt-get', 'install', '-y', '--no-install-recommends', ...packages.map((each) => each.name)]
}

/** The same as one line for a person's shell. */
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
