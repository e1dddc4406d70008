import type { CardTraffic } from '../host-driver.ts'
import { runCommand } from '../sys/run-command.ts'

/**
 * What passed each tap of a namespace since it was made, by its name. The kernel counts from the host's side: what a
 * tap receives was sent by its guest, also what the rules then dropped.
 */
export async function countTraffic(namespace: string): Promise<Map<string, CardTraffic>> {
  const { stdout } = await runCommand(['ip', '-netns', namespace, '-json', '-statistics', 'link', 'show'])
  return parseTraffic(stdout)
}

interface LinkStatistics {
  ifname?: string
  stats64?: { rx?: { bytes?: number; packets?: number }; tx?: { bytes?: number; packets?: number } }
}

/** The counts in what `ip -json -statistics link show` printed. Pure. */
export function parseTraffic(json: string): Map<string, CardTraffic> {
  const links: unknown = JSON.parse(json.trim() === '' ? '[]' : json)
  const taps = (Array.isArray(links) ? (links as LinkStatistics[]) : []).flatMap(({ ifname, stats64 }) => {
    if (ifname === undefined || !ifname.startsWith('vt')) return []
    const traffic = {
      received_bytes: stats64?.tx?.bytes ?? 0,
      received_packets: stats64?.tx?.packets ?? 0,
      sent_bytes: stats64?.rx?.bytes ?? 0,
      sent_packets: stats64?.rx?.packets ?? 0,
    }
    return [[ifname, traffic] as const]
  })
  return new Map(taps)
}
