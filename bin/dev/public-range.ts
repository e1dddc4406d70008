import { createHash } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { renameDurably } from '@berth/agent/sys/durable-rename.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { formatAddress, networkOf, overlap, parseNetwork } from '@berth/contract/networks/cidr.ts'
import type { PublicPoolConfig } from '@berth/server/config.ts'

/** A network that the host has a way to, and what leads there, in words. */
export interface TakenNetwork {
  cidr: string
  by: string
  /** Whether that is another installation of Berth. */
  berth: boolean
}

/** Ranges of 4,094 addresses each in the network for benchmarks (RFC 2544), which hides no real ones. */
const ranges = Array.from({ length: 32 }, (_, n) => `${formatAddress(networkOf('198.18.0.0/15').first + n * 4096)}/20`)

/** The range of a simulated host, which nobody else sees. */
export const simulatedPublicPools: readonly PublicPoolConfig[] = [{ name: 'default', cidr: ranges[0] ?? '' }]

/**
 * The public addresses of an installation that names none: the range that it has noted in `file`, or else the first that
 * nothing on this host leads to, noted from then on. Where the search begins follows from the installation's id, so that two
 * seldom want the same, even when one of them is down. Throws an Error that says what to do.
 */
export async function choosePublicPools(
  file: string,
  installation: string,
  taken: readonly TakenNetwork[],
): Promise<readonly PublicPoolConfig[]> {
  const noted = await readNoted(file)
  const cidr = noted ?? firstFree(installation, taken)
  const pools = [{ name: 'default', cidr }]
  refuseTakenPools(pools, taken)
  if (noted === null) {
    await writeFile(`${file}.partial`, `${JSON.stringify({ cidr })}\n`, { mode: 0o600 })
    await renameDurably(`${file}.partial`, file)
  }
  return pools
}

/** Throws an Error that says what to do when another installation on this host has addresses of one of these pools. */
export function refuseTakenPools(pools: readonly PublicPoolConfig[], taken: readonly TakenNetwork[]): void {
  for (const { name, cidr } of pools) {
    const other = taken.find((network) => network.berth && overlap(network.cidr, cidr))
    if (other === undefined) continue
    throw new Error(
      `public pool ${name}=${cidr}: ${other.cidr} in it belongs to ${other.by} on this machine; ` +
        'delete the instance there that has it, or give one of the two another range with --public-pool NAME=CIDR',
    )
  }
}

/** The networks that this host has a way to, but for its default one and those of an installation's own instances. */
export async function readTakenNetworks(installation: string): Promise<TakenNetwork[]> {
  const [links, routes] = await Promise.all([
    runCommand(['ip', '-json', 'link', 'show']),
    runCommand(['ip', '-json', '-4', 'route', 'show', 'table', 'all']),
  ])
  return takenNetworks(installation, links.stdout, routes.stdout)
}

/** The same from what ip(8) printed as JSON. Pure. */
export function takenNetworks(installation: string, links: string, routes: string): TakenNetwork[] {
  const aliases = new Map(
    (JSON.parse(links || '[]') as { ifname: string; ifalias?: string }[]).map((link) => [link.ifname, link.ifalias]),
  )
  return (JSON.parse(routes || '[]') as { dst: string; dev?: string }[]).flatMap(({ dst, dev = '' }) => {
    const cidr = dst.includes('/') ? dst : `${dst}/32`
    const owner = /^berth-([a-z0-9]{6})$/.exec(aliases.get(dev) ?? '')?.[1]
    if (parseNetwork(cidr) === null || cidr === '0.0.0.0/0' || owner === installation) return []
    const by = owner === undefined ? `a route over ${dev || 'no device'}` : `installation ${owner} of Berth`
    return [{ cidr, by, berth: owner !== undefined }]
  })
}

function firstFree(installation: string, taken: readonly TakenNetwork[]): string {
  const start = createHash('sha256').update(installation).digest().readUInt32BE(0) % ranges.length
  const free = [...ranges.slice(start), ...ranges.slice(0, start)].find(
    (range) => !taken.some(({ cidr }) => overlap(cidr, range)),
  )
  if (free !== undefined) return free
  throw new Error('this machine has routes to all of 198.18.0.0/15; name public addresses with --public-pool NAME=CIDR')
}

async function readNoted(file: string): Promise<string | null> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    if (Reflect.get(Object(error), 'code') === 'ENOENT') return null
    throw error
  })
  if (text === null) return null
  const { cidr } = Object(JSON.parse(text))
  if (typeof cidr === 'string' && parseNetwork(cidr) !== null) return cidr
  throw new Error(`${file} does not hold a range of public addresses; remove it to have another chosen`)
}
