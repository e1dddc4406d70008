import { mkdir } from 'node:fs/promises'
import { ipBatch } from '@berth/agent/network/namespace.ts'
import type { Nic } from '@berth/agent/network/nic.ts'
import { renderTapLines } from '@berth/agent/network/taps.ts'
import { VpcNetworks } from '@berth/agent/network/vpc-networks.ts'
import { testNic } from '@berth/agent/testing/nic.ts'
import type { DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import { tapName } from '@berth/contract/hosts/names.ts'
import type { PolicyGroup, PolicyRule } from '@berth/contract/networks/policy.ts'
import { pino } from 'pino'

const installation = 'bench'
const runtimeDirectory = `/run/berth/${installation}`
const gateway = '10.0.0.1'
const noMetadata = { open() {}, disconnect() {}, async close() {} }

/** Lets what a benchmark sends pass, by the last of `count` rules in each direction. */
export function lastOf(count: number): PolicyGroup {
  const rules = (['ingress', 'egress'] as const).flatMap((direction): PolicyRule[] => [
    ...Array.from({ length: count - 1 }, (_, index): PolicyRule => {
      const port = 20_000 + index
      return { direction, protocol: 'tcp', ports: { from: port, to: port }, remote: { cidr: '10.0.0.0/16' } }
    }),
    { direction, protocol: 'any', ports: null, remote: { cidr: '0.0.0.0/0' } },
  ])
  return { id: 'sg-bench', rules }
}

/** A VPC with the agent's own networks (`VpcNetworks`) on the host that `tools/on-host.ts` makes. */
export class VpcUnderTest {
  readonly namespace: string
  readonly #networks: VpcNetworks
  readonly #network: DesiredNetwork
  readonly #signal: AbortSignal
  readonly #taps = new Set<string>()
  #number = 0

  private constructor(networks: VpcNetworks, vpcId: string, signal: AbortSignal) {
    this.#networks = networks
    this.#signal = signal
    this.namespace = networks.namespaceOf(vpcId)
    this.#network = { vpc_id: vpcId, cidr: '10.0.0.0/16', subnets: [{ id: 'subnet-0', cidr: '10.0.0.0/16', gateway }] }
  }

  /** On a host of its own, or on that of another VPC. */
  static async open(vpcId: string, signal: AbortSignal, beside?: VpcUnderTest): Promise<VpcUnderTest> {
    await mkdir(runtimeDirectory, { recursive: true, mode: 0o711 })
    const vpc = new VpcUnderTest(beside === undefined ? newNetworks() : beside.#networks, vpcId, signal)
    await vpc.setGroup(lastOf(1))
    return vpc
  }

  /** Remove the namespace and all that is in it or belongs to it, whatever of it is there. */
  async close(): Promise<void> {
    // an agent that knows of no card in this VPC leaves nothing of it
    await newNetworks().detach(this.#network.vpc_id, 'vt-none', { signal: AbortSignal.timeout(60_000) })
  }

  /** A card that nothing has been done with. */
  card(): Nic {
    const number = ++this.#number
    const low = number + 1
    return testNic(number, {
      tap: tapName(installation, `${this.#network.vpc_id}-${number}`),
      mac: `06:00:00:00:${hex(number >> 8)}:${hex(number & 255)}`,
      ip: `10.0.${low >> 8}.${low & 255}`,
      ...{ gateway, security_groups: ['sg-bench'], bandwidth_mbps: 0 },
    })
  }

  /**
   * Have so many cards attached. All but the first two get their taps in one batch, and are in the rules with the second.
   */
  async fill(count: number): Promise<void> {
    if (count === 0) return
    await this.attach(this.card())
    const cards = Array.from({ length: Math.max(0, count - 2) }, () => this.card())
    await ipBatch(
      this.namespace,
      cards.flatMap((nic) => renderTapLines(nic, false)),
      { signal: this.#signal },
    )
    for (const nic of cards) {
      this.#taps.add(nic.tap)
      this.#networks.restore(this.#network.vpc_id, nic)
    }
    if (count > 1) await this.attach(this.card())
  }

  async attach(nic: Nic): Promise<void> {
    this.#taps.add(nic.tap)
    await this.#networks.attach(this.#network, nic, { signal: this.#signal })
  }

  async detach(nic: Nic): Promise<void> {
    this.#taps.delete(nic.tap)
    await this.#networks.detach(this.#network.vpc_id, nic.tap, { signal: this.#signal })
  }

  /** Look for damage at this VPC, and others of its host, and mend it; gives what was mended. */
  async heal(others: readonly VpcUnderTest[] = []): Promise<string[]> {
    const taps = new Set([this, ...others].flatMap((vpc) => [...vpc.#taps]))
    const { repairs } = await this.#networks.heal(taps, { signal: this.#signal })
    return repairs.map(({ object, detail }) => `${object}: ${detail}`)
  }

  /** Have the group of all cards. Comes back when its rules are in force. */
  async setGroup(group: PolicyGroup): Promise<void> {
    await this.#networks.apply({ instances: [], networks: [this.#network], security_groups: [group] })
  }
}

function newNetworks(): VpcNetworks {
  const log = pino({ level: 'warn' }, pino.destination(2))
  return new VpcNetworks({ installation, runtimeDirectory, announceOn: null, metadata: noMetadata, log })
}

const hex = (byte: number) => byte.toString(16).padStart(2, '0')
