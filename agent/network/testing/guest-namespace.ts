import { runCommand } from '../../sys/run-command.ts'
import { tapMtu } from '../names.ts'
import { ensureNamespace, inNamespace, ipBatch } from '../namespace.ts'
import type { Nic } from '../nic.ts'

/** Make a namespace that stands for a guest: the other end of a veth pair, in its VPC's namespace, is its card's tap. */
export async function makeGuestNamespace(namespace: string, vpcNamespace: string, nic: Nic): Promise<void> {
  await ensureNamespace(vpcNamespace) // so that the link is there before the card is attached
  await runCommand(['ip', 'netns', 'add', namespace])
  await runCommand([...inNamespace(namespace), 'sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=1'])
  await ipBatch(vpcNamespace, [`link add ${nic.tap} type veth peer name eth0 netns ${namespace}`])
  await ipBatch(namespace, [
    'link set lo up',
    `link set eth0 address ${nic.mac} mtu ${tapMtu} up`,
    `addr add ${nic.ip}/24 dev eth0`,
    `route add default via ${nic.gateway}`,
  ])
}
