import { inNamespace, ipBatch } from '@berth/agent/network/namespace.ts'
import { Peer } from '@berth/agent/network/testing/peer.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'

/** Addresses of the stand-in world: the host's and the router's on the link between them, and one beyond the router. */
export const world = { host: '198.51.100.1', router: '198.51.100.2', beyond: '203.0.113.99' } as const

/** The host's interface to the world. */
export const worldInterface = 'ext0'

const namespace = 'internet'

/** Give the host that `tools/on-host.ts` makes a world: a router behind its interface, and a process at it. */
export async function openWorld(): Promise<Peer> {
  await runCommand(['ip', 'netns', 'add', namespace])
  await runCommand([...inNamespace(namespace), 'sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=1'])
  await ip(
    `link add ${worldInterface} type veth peer name eth0 netns ${namespace}`,
    `addr add ${world.host}/24 dev ${worldInterface}`,
    `link set ${worldInterface} up`,
  )
  await ipBatch(namespace, [
    'link set lo up',
    `addr add ${world.router}/24 dev eth0`,
    `addr add ${world.beyond}/32 dev lo`,
    'link set eth0 up',
  ])
  await ip(`route add default via ${world.router}`)
  return new Peer(namespace, [world.router, world.beyond])
}

/** Take the world away, with the process at its router. */
export async function closeWorld(peer: Peer): Promise<void> {
  await peer.end()
  await ip(`link del ${worldInterface}`)
  await runCommand(['ip', 'netns', 'del', namespace])
}

/** Run ip(8) commands in the host's own namespace. */
async function ip(...lines: string[]): Promise<void> {
  await runCommand(['ip', '-batch', '-'], { input: `${lines.join('\n')}\n` })
}
