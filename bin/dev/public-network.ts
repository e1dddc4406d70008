import { access } from 'node:fs/promises'
import type { HostPackage } from '@berth/images/host-packages.ts'
import type { PublicPoolConfig } from '@berth/server/config.ts'
import { InvalidArgumentError } from 'commander'
import { missingPackages, renderInstallCommand } from '../host-packages.ts'

const arping: HostPackage = { name: 'iputils-arping', provides: 'arping', reason: 'announces public addresses' }

/**
 * Pools from `NAME=CIDR[,NAME=CIDR …]`, behind those that came before. What the ranges may be is the server's to say.
 * Throws InvalidArgumentError.
 */
export function parsePublicPool(text: string, previous: readonly PublicPoolConfig[] = []): PublicPoolConfig[] {
  const pools = text.split(',').map((part) => {
    const [, name, cidr] = /^([a-z0-9-]{1,63})=([0-9./]{1,18})$/.exec(part.trim()) ?? []
    if (name === undefined || cidr === undefined) {
      throw new InvalidArgumentError(`"${part}" is not NAME=CIDR, as office=203.0.113.0/24.`)
    }
    return { name, cidr }
  })
  return [...previous, ...pools]
}

/** The name of a network interface as Linux allows it, and no other word of ip(8). Throws InvalidArgumentError. */
export function parseInterface(text: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$/.test(text)) return text
  throw new InvalidArgumentError('must be the name of a network interface, as eth0.')
}

/** Throws an Error that says what is missing when this machine cannot announce addresses on an interface. */
export async function expectAnnouncing(name: string): Promise<void> {
  await access(`/sys/class/net/${name}`).catch(() => {
    throw new Error(`this machine has no network interface ${name}`)
  })
  const missing = await missingPackages([arping])
  if (missing.length > 0) {
    throw new Error(`announcing public addresses takes arping; run: ${renderInstallCommand(missing)}`)
  }
}
