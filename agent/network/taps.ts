import { type Abortable, CommandError, runCommand } from '../sys/run-command.ts'
import { gatewayMac, tapMtu } from './names.ts'
import { ipBatch, linkExists, listLinks } from './namespace.ts'
import type { Nic } from './nic.ts'

/** Bytes that may pass a tap at once above its bandwidth: a hundredth of a second's worth, one large segment at least. */
const burstBytes = (mbps: number) => Math.max(131_072, mbps * 1250)

/** Time a packet to a guest may wait for its bandwidth before it is dropped. */
const longestQueue = '50ms'

/**
 * ip(8) commands that make a tap what its card says, whatever of it is there: owned by the uid of its VMM, the gateway's
 * address on it, the route and the neighbour entry of its one guest. `exists` tells whether the link does. Pure.
 */
export function renderTapLines(nic: Nic, exists: boolean): string[] {
  return [
    ...(exists ? [] : [`tuntap add dev ${nic.tap} mode tap vnet_hdr user ${nic.uid}`]),
    `link set ${nic.tap} address ${gatewayMac} mtu ${tapMtu} up`,
    `addr replace ${nic.gateway}/32 dev ${nic.tap}`,
    `route replace ${nic.ip}/32 dev ${nic.tap}`,
    `neigh replace ${nic.ip} lladdr ${nic.mac} dev ${nic.tap} nud permanent`,
    // the default delays the first proxy-ARP answer by up to 0.8 s, and there is no default of a namespace to set
    `ntable change name arp_cache dev ${nic.tap} proxy_delay 0`,
  ]
}

/** The tc(8) command that gives a tap its bandwidth towards the guest, or takes the limit away. Pure. */
export function renderShapingLine({ tap, bandwidth_mbps: mbps }: Nic): string {
  // pfifo_fast is what a tap starts with
  if (mbps === 0) return `qdisc replace dev ${tap} root pfifo_fast`
  return `qdisc replace dev ${tap} root tbf rate ${mbps}mbit burst ${burstBytes(mbps)} latency ${longestQueue}`
}

/**
 * Have the tap of an instance. Idempotent. One that should be `missing`, of a card that was not there before, is made
 * without a look, which costs as much as the rest.
 */
export async function ensureTap(
  namespace: string,
  nic: Nic,
  options: Abortable = {},
  expected: 'missing' | 'unknown' = 'unknown',
): Promise<void> {
  const made = expected === 'missing' && (await makeTap(namespace, nic, options))
  if (!made) await ipBatch(namespace, renderTapLines(nic, await linkExists(namespace, nic.tap, options)), options)
  if (made && nic.bandwidth_mbps === 0) return // no link is made with a limit
  const shaping = { ...options, input: `${renderShapingLine(nic)}\n` }
  await runCommand(['tc', '-netns', namespace, '-batch', '-'], shaping)
}

/** Make a tap; false when it could not be made, because it is there or for a reason that the next command meets, too. */
async function makeTap(namespace: string, nic: Nic, options: Abortable): Promise<boolean> {
  return ipBatch(namespace, renderTapLines(nic, false), options).then(
    () => true,
    (error: unknown) => {
      if (options.signal?.aborted || !(error instanceof CommandError)) throw error
      return false
    },
  )
}

/** Remove a tap with its address, route and neighbour entry. Idempotent. */
export async function removeTap(namespace: string, tap: string, options: Abortable = {}): Promise<void> {
  await ipBatch(namespace, [`link del ${tap}`], options).catch(async (error: unknown) => {
    if (options.signal?.aborted || !(error instanceof CommandError)) throw error
    if ((await listLinks(namespace, options)).includes(tap)) throw error
  })
}
