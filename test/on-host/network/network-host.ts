import { mkdir, rm } from 'node:fs/promises'
import type { Nic } from '@berth/agent/network/nic.ts'
import { makeGuestNamespace } from '@berth/agent/network/testing/guest-namespace.ts'
import { Peer } from '@berth/agent/network/testing/peer.ts'
import { VpcNetworks } from '@berth/agent/network/vpc-networks.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { testNic } from '@berth/agent/testing/nic.ts'
import type { DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import { tapName } from '@berth/contract/hosts/names.ts'
import type { PolicyGroup, PolicyRule } from '@berth/contract/networks/policy.ts'
import { pino } from 'pino'
import { closeWorld, openWorld, worldInterface } from './world.ts'

const installation = 'packet'
const runtimeDirectory = `/run/berth/${installation}`

/** A group of rules as a host gets it. */
export function group(id: string, ...rules: PolicyRule[]): PolicyGroup {
  return { id, rules }
}

/** `ports` is one, or the first and the last of a range. */
export function rule(
  direction: PolicyRule['direction'],
  protocol: PolicyRule['protocol'],
  ports: number | [from: number, to: number] | null,
  remote: PolicyRule['remote'] = { cidr: '0.0.0.0/0' },
): PolicyRule {
  const [from, to] = Array.isArray(ports) ? ports : [ports, ports]
  return { direction, protocol, ports: from === null || to === null ? null : { from, to }, remote }
}

/** Lets everything in and out. */
export const open = group('sg-open', rule('ingress', 'any', null), rule('egress', 'any', null))

/** Lets everything out, and nothing in. */
export const out = group('sg-out', rule('egress', 'any', null))

/** A stand-in for a virtual machine: a namespace with a card like a guest's, and a process in it. */
export interface Guest extends Peer {
  readonly vpcId: string
  nic: Nic
  readonly namespace: string
}

/** The metadata service has tests of its own (test/on-host/metadata.test.ts). */
export const noMetadata = { open() {}, disconnect() {}, async close() {} }

/**
 * The agent's networks (`VpcNetworks`, as it stands) on the host that `tools/on-host.ts` makes, with guests that are
 * namespaces instead of virtual machines: a veth pair stands where the tap would be. Beyond the host there is a router
 * that stands for the world.
 */
export class NetworkHost {
  readonly networks: VpcNetworks
  /** A process in the host's own namespace. */
  readonly host: Peer
  /** A process in the world. */
  readonly internet: Peer
  readonly #vpcs = new Map<string, DesiredNetwork>()
  readonly #guests: Guest[] = []
  readonly #owners = new Map<string, string>()
  #groups: readonly PolicyGroup[] = [open, out]
  #number = 0

  private constructor(announce: boolean, internet: Peer) {
    const announceOn = announce ? worldInterface : null
    const log = pino({ level: 'silent' })
    this.networks = new VpcNetworks({ installation, runtimeDirectory, announceOn, metadata: noMetadata, log })
    this.host = new Peer(null)
    this.internet = internet
  }

  /** `announce`: the world reaches public addresses; otherwise only the host does. */
  static async open({ announce = false } = {}): Promise<NetworkHost> {
    await mkdir(runtimeDirectory, { recursive: true, mode: 0o711 })
    return new NetworkHost(announce, await openWorld())
  }

  /** Remove everything that was made, whatever of it is there. */
  async close(): Promise<void> {
    await this.host.end()
    for (const guest of [...this.#guests]) await this.remove(guest)
    await closeWorld(this.internet)
    await rm(runtimeDirectory, { recursive: true, force: true })
  }

  /** Make a VPC known. Its subnets are a /24 each; the gateway is the first address. */
  vpc(id: string, cidr = '10.0.0.0/16', subnets: readonly string[] = ['10.0.1.0/24', '10.0.2.0/24']): string {
    this.#vpcs.set(id, {
      vpc_id: id,
      cidr,
      subnets: subnets.map((subnet, index) => ({
        id: `subnet-${index}`,
        cidr: subnet,
        gateway: subnet.replace(/0\/24$/, '1'),
      })),
    })
    return id
  }

  /** Attach a guest with an address out of a subnet of its VPC (the first), and start its process. */
  async guest(vpcId: string, ip: string, changes: Partial<Nic> = {}): Promise<Guest> {
    const number = ++this.#number
    const gateway = ip.replace(/\d+$/, '1')
    const nic = testNic(number, {
      tap: tapName(installation, `inst-${number}`),
      ...{ ip, gateway, hostname: `guest-${number}`, security_groups: ['sg-open'], bandwidth_mbps: 0 },
      ...changes,
    })
    const namespace = `guest-${number}`
    await makeGuestNamespace(namespace, this.networks.namespaceOf(vpcId), nic)
    const guest = Object.assign(new Peer(namespace), { vpcId, nic, namespace })
    this.#guests.push(guest)
    await this.attach(guest)
    return guest
  }

  /** Have the card of a guest as it says now. */
  async attach(guest: Guest): Promise<void> {
    const network = this.#vpcs.get(guest.vpcId)
    if (network === undefined) throw new Error(`there is no ${guest.vpcId}`)
    await this.#apply()
    await this.networks.attach(network, guest.nic, { signal: AbortSignal.timeout(240_000) })
  }

  /** Change a card that is attached, as a PATCH of its instance does. */
  async change(guest: Guest, changes: Partial<Nic>): Promise<void> {
    guest.nic = { ...guest.nic, ...changes }
    await this.attach(guest)
  }

  /** Delete a guest. */
  async remove(guest: Guest): Promise<void> {
    await guest.end()
    await this.networks.detach(guest.vpcId, guest.nic.tap, { signal: AbortSignal.timeout(240_000) })
    await runCommand(['ip', 'netns', 'del', guest.namespace])
    this.#guests.splice(this.#guests.indexOf(guest), 1)
  }

  /** Have the server name this guest's instance as the one that a public address belongs to. */
  async setOwner(address: string, guest: Guest): Promise<void> {
    this.#owners.set(address, guest.namespace.replace('guest-', 'inst-'))
    await this.#apply()
  }

  async #apply(): Promise<void> {
    await this.networks.apply({
      networks: [...this.#vpcs.values()],
      security_groups: [...this.#groups],
      instances: [...this.#owners].map(([address, id]) => ({ id, public_ip: address })),
    })
  }

  /** Have these groups, besides `open` and `out`. Comes back when their rules are in force. */
  async setGroups(...groups: PolicyGroup[]): Promise<void> {
    this.#groups = [open, out, ...groups]
    await this.#apply()
  }
}
