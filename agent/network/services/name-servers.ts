import { open } from 'node:fs/promises'
import { holds, parseAddress } from '@berth/contract/networks/cidr.ts'

/** Where a host names the servers it asks (resolv.conf(5)); the second one lists those behind systemd-resolved's stub. */
const files = { own: '/etc/resolv.conf', behindStub: '/run/systemd/resolve/resolv.conf' } as const

/** Address systemd-resolved listens on (systemd-resolved.service(8)). */
const stub = '127.0.0.53'

/** As many servers as a resolver asks (MAXNS, resolv.h). */
const mostServers = 3

/** Bytes of a file that are looked at. */
const mostBytes = 65_536

/**
 * The name servers that the host asks and a VPC's namespace can ask too: by IPv4, and not on the host's loopback. None
 * when the host knows none, and none that is not an address.
 */
export async function hostNameServers(): Promise<string[]> {
  const own = parseNameServers(await read(files.own))
  const servers = own.includes(stub) ? [...own, ...parseNameServers(await read(files.behindStub))] : own
  return [...new Set(servers)]
    .filter((address) => !['127.0.0.0/8', '0.0.0.0/8'].some((range) => holds(range, address)))
    .slice(0, mostServers)
}

/** IPv4 addresses of the `nameserver` lines of a resolv.conf(5), in its order. Pure. */
export function parseNameServers(text: string): string[] {
  const named = text.matchAll(/^nameserver[ \t]+(\S+)/gm)
  return [...named].map(([, address = '']) => address).filter((address) => parseAddress(address) !== null)
}

async function read(path: string): Promise<string> {
  try {
    await using file = await open(path)
    const { buffer, bytesRead } = await file.read(Buffer.alloc(mostBytes), 0, mostBytes, 0)
    return buffer.toString('utf8', 0, bytesRead)
  } catch {
    return ''
  }
}
