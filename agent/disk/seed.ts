import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { DesiredInstance, DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import type { CatalogueImage } from '@berth/contract/images/images.ts'
import { networkOf } from '@berth/contract/networks/cidr.ts'
import { stringify } from 'yaml'
import { HostError } from '../host-driver.ts'
import { tapMtu } from '../network/names.ts'
import { renameDurably } from '../sys/durable-rename.ts'
import { runCommand } from '../sys/run-command.ts'

/** The four files of a NoCloud seed (https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html). */
export interface SeedFiles {
  'meta-data': string
  'user-data': Buffer
  'vendor-data': string
  'network-config': string
}

/** Where the guest finds its own address. `prefixLength` and gateway are those of its subnet. */
export interface SeedNetwork {
  prefixLength: number
  gateway: string
}

/** What an instance is told of its subnet. Throws HostError when the desired state does not describe it. */
export function seedNetworkOf(instance: DesiredInstance, network: DesiredNetwork): SeedNetwork {
  const subnet = network.subnets.find(({ id }) => id === instance.subnet_id)
  if (subnet !== undefined) return { prefixLength: networkOf(subnet.cidr).prefixLength, gateway: subnet.gateway }
  const message = `the desired state does not describe subnet ${instance.subnet_id}`
  throw new HostError('network_failed', message, { retryable: false })
}

/** YAML 1.1, which cloud-init reads: quoted where 1.1 needs it, long keys never folded. */
const toYaml = (value: unknown) => stringify(value, { version: '1.1', lineWidth: 0 })

/**
 * What an instance's seed says. `vendorData` is the `#!` script that installs the ready mark on stock images; user data
 * goes in as it is. Pure.
 */
export function renderSeed(
  instance: DesiredInstance,
  network: SeedNetwork,
  image: Pick<CatalogueImage, 'network'>,
  vendorData: string,
): SeedFiles {
  const address =
    image.network === 'dhcp'
      ? { dhcp4: true }
      : {
          addresses: [`${instance.private_ip}/${network.prefixLength}`],
          routes: [{ to: '0.0.0.0/0', via: network.gateway }],
          nameservers: { addresses: [network.gateway] },
        }
  return {
    'meta-data': toYaml({
      'instance-id': instance.id,
      'local-hostname': instance.hostname,
      'public-keys': instance.ssh_public_keys,
    }),
    'user-data': Buffer.from(instance.user_data, 'base64'),
    'vendor-data': vendorData,
    'network-config': toYaml({
      version: 2,
      ethernets: {
        nic0: { match: { macaddress: instance.mac }, 'set-name': 'eth0', mtu: tapMtu, ...address },
      },
    }),
  }
}

/**
 * The vendor-data script: puts the ready unit on a guest that has none and starts it. Not `runcmd`, which a user's own
 * list would replace.
 */
export async function renderVendorData(guestDirectory: string): Promise<string> {
  const [script, unit] = await Promise.all(
    ['berth-ready', 'berth-ready.service'].map(async (name) =>
      (await readFile(join(guestDirectory, name))).toString('base64'),
    ),
  )
  return `#!/bin/sh
set -e
[ -e /etc/systemd/system/berth-ready.service ] && exit 0
[ -e /usr/lib/systemd/system/berth-ready.service ] && exit 0
[ -e /lib/systemd/system/berth-ready.service ] && exit 0
mkdir -p /usr/lib/berth
echo '${script}' | base64 -d > /usr/lib/berth/berth-ready
chmod 755 /usr/lib/berth/berth-ready
echo '${unit}' | base64 -d > /etc/systemd/system/berth-ready.service
systemctl daemon-reload
systemctl enable berth-ready.service
systemctl start --no-block berth-ready.service
`
}

/** Write a seed as a FAT file system with the label CIDATA, by rename. */
export async function writeSeed(file: string, files: SeedFiles, options: { signal?: AbortSignal } = {}): Promise<void> {
  const partial = `${file}.partial`
  const work = await mkdtemp(`${file}.work-`)
  try {
    const names = Object.keys(files) as (keyof SeedFiles)[]
    for (const name of names) await writeFile(join(work, name), files[name], { mode: 0o600 })
    await rm(partial, { force: true })
    await runCommand(['mkfs.vfat', '-C', '-n', 'CIDATA', partial, '1024'], options) // 1 MiB: 64 KiB of user data and little else
    await runCommand(['mcopy', '-i', partial, ...names.map((name) => join(work, name)), '::'], options)
    await renameDurably(partial, file)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}
