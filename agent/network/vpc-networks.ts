import { join } from 'node:path'
import type { DesiredNetwork } from '@berth/contract/host.ts'
import { vpcNamespaceName } from '@berth/contract/host-names.ts'
import type { Nic } from '../instance-record.ts'
import { ensureDnsmasq, removeDnsmasq, updateGuests } from './dnsmasq.ts'
import { ensureNamespace, forgetConnections, isNamespace, loadRuleset, removeNamespace } from './namespace.ts'
import { renderRuleset } from './ruleset.ts'
import { ensureTap, removeTap } from './taps.ts'

interface VpcState {
  nics: Map<string, Nic>
  /** Changes of one VPC happen one after the other. */
  queue: Promise<unknown>
}

/**
 * The VPCs of this host: a namespace each while it has an instance, its ruleset and dnsmasq rendered whole from the
 * cards attached to it and applied in one go.
 */
export class VpcNetworks {
  readonly #installation: string
  readonly #runtimeDirectory: string
  readonly #vpcs = new Map<string, VpcState>()

  constructor(installation: string, runtimeDirectory: string) {
    this.#installation = installation
    this.#runtimeDirectory = runtimeDirectory
  }

  namespaceOf(vpcId: string): string {
    return vpcNamespaceName(this.#installation, vpcId)
  }

  /** Note a card that an earlier run of the agent attached, so that the next change of its VPC keeps it. */
  restore(vpcId: string, nic: Nic): void {
    this.#vpc(vpcId).nics.set(nic.tap, nic)
  }

  /** Have a card in its VPC's namespace. Gives the namespace's name. */
  attach(network: DesiredNetwork, nic: Nic): Promise<string> {
    return this.#inTurn(network.vpc_id, async (vpc) => {
      const namespace = this.namespaceOf(network.vpc_id)
      vpc.nics.set(nic.tap, nic)
      await ensureNamespace(namespace, network.cidr)
      await ensureTap(namespace, nic)
      await this.#applyRules(namespace, vpc)
      await ensureDnsmasq(namespace, this.#directoryOf(namespace), network, [...vpc.nics.values()])
      return namespace
    })
  }

  /** Leave nothing of a card; the namespace goes with its last one. Idempotent. */
  detach(vpcId: string, tap: string): Promise<void> {
    return this.#inTurn(vpcId, async (vpc) => {
      const namespace = this.namespaceOf(vpcId)
      const nic = vpc.nics.get(tap)
      vpc.nics.delete(tap)
      if (vpc.nics.size === 0) {
        await removeDnsmasq(this.#directoryOf(namespace))
        // the tap by itself: somebody's process in the namespace would keep both alive unseen
        if (await isNamespace(namespace)) await removeTap(namespace, tap)
        await removeNamespace(namespace)
        return
      }
      if (!(await isNamespace(namespace))) return
      await this.#applyRules(namespace, vpc)
      await removeTap(namespace, tap)
      if (nic !== undefined) await forgetConnections(namespace, nic.ip)
      await updateGuests(this.#directoryOf(namespace), [...vpc.nics.values()])
    })
  }

  async #applyRules(namespace: string, vpc: VpcState): Promise<void> {
    await loadRuleset(namespace, renderRuleset([...vpc.nics.values()]))
  }

  #directoryOf(namespace: string): string {
    return join(this.#runtimeDirectory, namespace)
  }

  #vpc(vpcId: string): VpcState {
    const existing = this.#vpcs.get(vpcId)
    if (existing !== undefined) return existing
    const vpc: VpcState = { nics: new Map(), queue: Promise.resolve() }
    this.#vpcs.set(vpcId, vpc)
    return vpc
  }

  #inTurn<T>(vpcId: string, work: (vpc: VpcState) => Promise<T>): Promise<T> {
    const vpc = this.#vpc(vpcId)
    const mine = vpc.queue.then(() => work(vpc))
    vpc.queue = mine.catch(() => undefined)
    return mine
  }
}
