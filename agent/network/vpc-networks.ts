import { join } from 'node:path'
import type { DesiredNetwork } from '@berth/contract/host.ts'
import { vpcNamespaceName } from '@berth/contract/host-names.ts'
import type { Nic } from '../instance-record.ts'
import { untilAborted } from '../until-aborted.ts'
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

  /** Have a card in its VPC's namespace. Gives the namespace's name. Ends early with the signal, perhaps half made. */
  attach(network: DesiredNetwork, nic: Nic, options: { signal: AbortSignal }): Promise<string> {
    return this.#inTurn(network.vpc_id, options, async (vpc) => {
      const namespace = this.namespaceOf(network.vpc_id)
      vpc.nics.set(nic.tap, nic)
      await ensureNamespace(namespace, network.cidr, options)
      await ensureTap(namespace, nic, options)
      await this.#applyRules(namespace, vpc, options)
      options.signal.throwIfAborted()
      await ensureDnsmasq(namespace, this.#directoryOf(namespace), network, [...vpc.nics.values()])
      return namespace
    })
  }

  /** Leave nothing of a card; the namespace goes with its last one. Idempotent. Ends early with the signal. */
  detach(vpcId: string, tap: string, options: { signal: AbortSignal }): Promise<void> {
    return this.#inTurn(vpcId, options, async (vpc) => {
      const namespace = this.namespaceOf(vpcId)
      const nic = vpc.nics.get(tap)
      vpc.nics.delete(tap)
      if (vpc.nics.size === 0) {
        await removeDnsmasq(this.#directoryOf(namespace))
        // the tap by itself: somebody's process in the namespace would keep both alive unseen
        if (await isNamespace(namespace)) await removeTap(namespace, tap, options)
        await removeNamespace(namespace, options)
        return
      }
      if (!(await isNamespace(namespace))) return
      await this.#applyRules(namespace, vpc, options)
      await removeTap(namespace, tap, options)
      if (nic !== undefined) await forgetConnections(namespace, nic.ip, options)
      await updateGuests(this.#directoryOf(namespace), [...vpc.nics.values()])
    })
  }

  async #applyRules(namespace: string, vpc: VpcState, options: { signal: AbortSignal }): Promise<void> {
    await loadRuleset(namespace, renderRuleset([...vpc.nics.values()]), options)
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

  /** Who has not had its turn when its signal is aborted leaves the queue at once. */
  #inTurn<T>(vpcId: string, { signal }: { signal: AbortSignal }, work: (vpc: VpcState) => Promise<T>): Promise<T> {
    const vpc = this.#vpc(vpcId)
    let begun = false
    const mine = vpc.queue.then(() => {
      signal.throwIfAborted()
      begun = true
      return work(vpc)
    })
    vpc.queue = mine.then(
      () => undefined,
      () => undefined,
    )
    return untilAborted(mine, signal).catch((error) => (begun ? mine : Promise.reject(error)))
  }
}
