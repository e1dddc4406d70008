import { join } from 'node:path'
import type { DesiredNetwork, HostOrphan } from '@berth/contract/hosts/agent-protocol.ts'
import { tapName, uplinkName, vpcNamespaceName } from '@berth/contract/hosts/names.ts'
import type { PolicyGroup } from '@berth/contract/networks/policy.ts'
import type { Logger } from 'pino'
import type { CardTraffic, DesiredNetworks, NetworkHealth } from '../host-driver.ts'
import type { KnownObjects } from '../sys/leftovers.ts'
import type { Abortable } from '../sys/run-command.ts'
import { together } from '../sys/together.ts'
import { cutForbidden, forgetConnections } from './connections.ts'
import { healVpc, type VpcToHeal } from './healing/healing.ts'
import { findHolder } from './healing/holder.ts'
import { namespaceOrphans, vpcOrphans } from './healing/orphans.ts'
import { serviceAddress, uplinkInside } from './names.ts'
import { ensureNamespace, ipBatch, isNamespace, nameNamespace, removeNamespace, setSysctls } from './namespace.ts'
import { type NetworkFault, networkFault } from './network-fault.ts'
import type { Nic } from './nic.ts'
import { PublicAddresses } from './public-addresses.ts'
import { describeFaults } from './ruleset/faults.ts'
import type { RulesetPlan } from './ruleset/ruleset.ts'
import { ensureDnsmasq, removeDnsmasq, removeGuest } from './services/dnsmasq.ts'
import { releaseStaleLeases } from './services/leases.ts'
import { ensureTap, removeTap } from './taps.ts'
import { countTraffic } from './traffic.ts'
import { type Uplink, Uplinks } from './uplink/uplinks.ts'
import { inTurn, newVpcState, type VpcState } from './vpc-state.ts'

/** The service of each VPC that lives as long as its namespace and is not a process in it. */
export interface NamespaceService {
  /** The namespace is there. */
  open(vpcId: string, namespace: string): void
  /** An address goes: its connections end before another card may have it. */
  disconnect(vpcId: string, address: string): void
  /** The namespace goes; resolves when nothing of the service is in it. */
  close(vpcId: string): Promise<void>
}

export interface VpcNetworksOptions {
  installation: string
  /** `/run/berth/<installation>`. */
  runtimeDirectory: string
  /** Interface that answers for public addresses; null when only this host reaches them. */
  announceOn: string | null
  /** Serves 169.254.169.254 in the namespaces. */
  metadata: NamespaceService
  log: Logger
}

/**
 * The VPCs of this host: a namespace each while it has an instance, with an uplink to the host, its ruleset and dnsmasq
 * made from the cards attached to it, each applied in one go.
 */
export class VpcNetworks {
  readonly #options: VpcNetworksOptions
  readonly #vpcs = new Map<string, VpcState>()
  readonly #uplinks: Uplinks
  readonly #addresses = new PublicAddresses()
  #groups: ReadonlyMap<string, PolicyGroup> = new Map()
  #onChange: () => void = () => {}

  constructor(options: VpcNetworksOptions) {
    this.#options = options
    const { installation, announceOn } = options
    this.#uplinks = new Uplinks(this.#addresses, {
      installation,
      announceOn,
      onTaken: (...what) => this.#noteTaken(...what),
    })
  }

  namespaceOf(vpcId: string): string {
    return vpcNamespaceName(this.#options.installation, vpcId)
  }

  /** Note a card that an earlier run of the agent attached, so that the next change of its VPC keeps it. */
  restore(vpcId: string, nic: Nic): void {
    const vpc = this.#vpc(vpcId)
    vpc.nics.set(nic.tap, nic)
    this.#addresses.give(vpcId, nic.tap, nic.public_ip)
    this.#uplinks.restore(vpcId)
    this.#options.metadata.open(vpcId, this.namespaceOf(vpcId))
  }

  /** Take the networks and groups that are desired. Resolves when the rulesets that this changes are in force. */
  async apply({ networks, security_groups: groups, instances }: DesiredNetworks): Promise<void> {
    this.#groups = new Map(groups.map((group) => [group.id, group]))
    const { installation } = this.#options
    this.#addresses.hear(instances.map(({ id, public_ip: address }) => ({ card: tapName(installation, id), address })))
    for (const network of networks) this.#vpc(network.vpc_id).network = network
    const changed = [...this.#vpcs].filter(([, vpc]) => vpc.nics.size > 0 && this.#rulesDiffer(vpc))
    await Promise.all(changed.map(([vpcId]) => this.#reload(vpcId)))
    this.#onChange() // also what is left out changes what is in force
  }

  async #reload(vpcId: string): Promise<void> {
    const signal = AbortSignal.timeout(30_000)
    await this.#inTurn(vpcId, { signal }, async (vpc) => {
      const namespace = this.namespaceOf(vpcId)
      if (vpc.network === null || vpc.nics.size === 0 || !(await isNamespace(namespace))) return
      const plan = this.#plan(vpc, vpc.network)
      await vpc.rules.apply(namespace, plan, { signal })
      await cutForbidden(namespace, vpc.rules.loadable(plan), { signal })
    }).catch((error) => {
      this.#vpc(vpcId).rules.forget() // so that the next desired state or look tries again
      this.#options.log.error({ err: error, vpc_id: vpcId }, 'new rules could not be put in force')
    })
  }

  /** Have a card in its VPC's namespace. Gives the namespace's name. Ends early with the signal, perhaps half made. */
  attach(network: DesiredNetwork, asked: Nic, options: Required<Abortable>): Promise<string> {
    return this.#inTurn(network.vpc_id, options, async (vpc) => {
      const namespace = this.namespaceOf(network.vpc_id)
      const before = this.#addresses.ofVpc(network.vpc_id)
      const nic = { ...asked, public_ip: this.#addresses.give(network.vpc_id, asked.tap, asked.public_ip) }
      const earlier = vpc.nics.get(nic.tap)
      vpc.network = network
      vpc.nics.set(nic.tap, nic)
      const prepare = !vpc.prepared || !(await isNamespace(namespace))
      vpc.prepared = false
      // of a card that is new here there is no VMM that could keep a namespace whose name has gone
      const attached = [...vpc.nics.keys()].filter((tap) => earlier !== undefined || tap !== nic.tap)
      const ready = prepare ? this.#ensureNamespace(namespace, vpc, attached, options) : Promise.resolve()
      const reach = async () => {
        if (prepare) await this.#connect(namespace, network, ready, options)
        else if (before.join() !== this.#addresses.ofVpc(network.vpc_id).join())
          await this.#uplinks.setAddresses(network.vpc_id, namespace, options)
      }
      const nics = this.#cards(vpc)
      const directory = this.#directoryOf(namespace)
      // rules name taps by their names, and the guest does not run yet
      await together(
        ready,
        reach(),
        ready.then(() => vpc.rules.apply(namespace, this.#plan(vpc, network), options)),
        // the tap first: a dnsmasq that looks at the addresses when it starts may miss one that comes meanwhile
        ready
          .then(() => ensureTap(namespace, nic, options, earlier === undefined ? 'missing' : 'unknown'))
          .then(() => ensureDnsmasq(namespace, directory, network, { nics, changed: prepare ? nics : [nic] }, options)),
      )
      options.signal.throwIfAborted()
      if (earlier !== undefined) await this.#cutWhatChanged(namespace, vpc, nic.tap, options)
      await releaseStaleLeases(namespace, directory, [nic], options).catch((error) => {
        // the next look for damage tries again; a guest with a static address does not miss it
        this.#options.log.warn({ err: error, vpc_id: network.vpc_id }, 'the lease of an address cannot be ended')
      })
      vpc.prepared = true
      return namespace
    })
  }

  /** Whether a card that was attached has the public address it was attached with. */
  keepsAddress({ tap, public_ip: address }: Nic): boolean {
    return this.#addresses.keeps(tap, address)
  }

  /** What passed the cards of some VPCs, by the name of the tap. */
  async traffic(vpcIds: ReadonlySet<string>): Promise<ReadonlyMap<string, CardTraffic>> {
    const namespaces = [...vpcIds].map((vpcId) => this.namespaceOf(vpcId))
    const there = await Promise.all(namespaces.map(async (name) => ((await isNamespace(name)) ? [name] : [])))
    const counted = await Promise.all(there.flat().map((namespace) => countTraffic(namespace)))
    return new Map(counted.flatMap((taps) => [...taps]))
  }

  /**
   * Leave nothing of a card; the namespace goes with its last one. Idempotent. Ends early with the signal. What is of this
   * card alone goes whatever can be loaded for those that stay: that is tried again by the next look for damage.
   */
  detach(vpcId: string, tap: string, options: Required<Abortable>): Promise<void> {
    return this.#inTurn(vpcId, options, async (vpc) => {
      const namespace = this.namespaceOf(vpcId)
      const directory = this.#directoryOf(namespace)
      const nic = vpc.nics.get(tap)
      const wasPrepared = vpc.prepared
      vpc.prepared = false // until all of the card is gone
      vpc.nics.delete(tap)
      const publicAddress = this.#addresses.drop(tap)
      const gone = publicAddress === '' ? [] : [publicAddress]
      if (nic !== undefined) this.#options.metadata.disconnect(vpcId, nic.ip)
      if (vpc.nics.size === 0) {
        vpc.rules.forget()
        await removeDnsmasq(directory)
        await this.#options.metadata.close(vpcId)
        // the links by themselves: somebody's process in the namespace would keep them alive unseen
        if (await isNamespace(namespace)) await removeTap(namespace, tap, options)
        await this.#uplinks.remove(vpcId, gone, options)
        await removeNamespace(namespace, options)
        await this.#loadWithout(vpcId, () => this.#uplinks.loadRules(options), options)
        return
      }
      if (!(await isNamespace(namespace))) return
      await this.#uplinks.dropAddresses(vpcId, gone, options)
      await removeTap(namespace, tap, options)
      await removeGuest(directory, tap)
      const loaded = await this.#loadWithout(
        vpcId,
        async () => {
          if (gone.length > 0) await this.#uplinks.loadRules(options)
          if (vpc.network !== null) await vpc.rules.apply(namespace, this.#plan(vpc, vpc.network), options)
        },
        options,
      )
      if (nic !== undefined) await forgetConnections(namespace, [nic.ip, ...gone], options)
      vpc.prepared = wasPrepared && loaded
    })
  }

  /** Load rules that speak no more of a card that went; tells whether that was done. */
  async #loadWithout(vpcId: string, load: () => Promise<void>, { signal }: Required<Abortable>): Promise<boolean> {
    try {
      await load()
      return true
    } catch (error) {
      if (signal.aborted) throw error
      this.#vpc(vpcId).rules.forget()
      this.#options.log.error({ err: error, vpc_id: vpcId }, 'rules could not be loaded without a card that went')
      return false
    }
  }

  /** Call back when what `networkFault` gives may be another. */
  onNetworkChange(listener: () => void): void {
    this.#onChange = listener
  }

  /** Why a card that was attached is not all that was asked for; null when it is. */
  networkFault(vpcId: string, { tap, security_groups: carried }: Nic): NetworkFault | null {
    const vpc = this.#vpcs.get(vpcId)
    if (vpc === undefined || !vpc.nics.has(tap)) return null
    const address = this.#addresses.of(tap)
    return networkFault(address, {
      rules: describeFaults(carried, this.#groups, (group) => vpc.rules.faultsOf(group)),
      takenBy: this.#uplinks.taken.get(address) ?? null,
    })
  }

  #noteTaken(address: string, by: string | null): void {
    const { log } = this.#options
    if (by === null)
      log.info({ public_ip: address }, 'a public address that was led elsewhere on this machine is here now')
    else
      log.warn({ public_ip: address, taken_by: by }, 'a public address is led elsewhere on this machine, and stays so')
    this.#onChange()
  }

  /** Cut the connections that a card no longer may have, now that the rules for what it is are in force. */
  async #cutWhatChanged(namespace: string, vpc: VpcState, tap: string, options: Abortable): Promise<void> {
    const left = this.#addresses.leftBy(tap)
    if (left.length > 0) await forgetConnections(namespace, left, options)
    this.#addresses.cut(tap)
    if (vpc.network === null) return
    await cutForbidden(namespace, vpc.rules.loadable(this.#plan(vpc, vpc.network)), options)
  }

  /**
   * Look whether the VPCs that have one of these taps are what they should be, and put right what is not. Changes under
   * way are waited for, and nothing is touched where nothing is wrong. What cannot be put right is logged, and tried
   * again at the next look.
   */
  async heal(taps: ReadonlySet<string>, options: Required<Abortable>): Promise<NetworkHealth> {
    const health: NetworkHealth = { repairs: [], unattached: [] }
    const failed = (error: unknown, vpcId: string) => {
      this.#options.log.error({ err: error, vpc_id: vpcId }, 'the network cannot be looked at or put right')
    }
    const vpcs = [...this.#vpcs].filter(([, { nics }]) => [...nics.keys()].some((tap) => taps.has(tap)))
    if (vpcs.length === 0) return health
    const uplinks = await this.#uplinks.heal(health.repairs, options).catch((error) => {
      failed(error, '')
      return new Map<string, Uplink>() // each is looked for by itself then
    })
    for (const [vpcId] of vpcs) {
      if (options.signal.aborted) break
      const look = async (vpc: VpcState) => {
        const toHeal = this.#toHeal(vpcId, vpc, { taps, uplinks }, options)
        if (toHeal !== null) await healVpc(toHeal, health, options)
      }
      await this.#inTurn(vpcId, options, look).catch((error) => failed(error, vpcId))
    }
    return health
  }

  /** A VPC as it should be now; null when it should not be here. `uplinks` are those that were found lately. */
  #toHeal(
    vpcId: string,
    vpc: VpcState,
    { taps, uplinks }: { taps: ReadonlySet<string>; uplinks: ReadonlyMap<string, Uplink> },
    options: Abortable,
  ): VpcToHeal | null {
    const { network, rules } = vpc
    const nics = this.#cards(vpc)
    const looked = nics.filter(({ tap }) => taps.has(tap))
    if (network === null || looked.length === 0) return null
    const namespace = this.namespaceOf(vpcId)
    const known = uplinks.get(uplinkName(this.#options.installation, vpcId))
    return {
      ...{ vpcId, namespace, network, nics, looked, rules },
      directory: this.#directoryOf(namespace),
      plan: this.#plan(vpc, network), // as it is before the look: what is desired anew meanwhile has its own turn
      findUplink: async () => known ?? this.#uplinks.find(vpcId, options), // it may have come since
      cutUplink: () => this.#uplinks.cut(vpcId, options),
      prepare: () => this.#prepare(namespace, network, vpc, options),
    }
  }

  /** What there is of this installation's networks that nothing known explains. Each VPC is looked at in its turn. */
  async findOrphans(known: () => KnownObjects, options: Required<Abortable>): Promise<HostOrphan[]> {
    const { installation } = this.#options
    const found = await namespaceOrphans(installation, known)
    found.push(...(await this.#uplinks.findOrphans(known, options)))
    const isTap = (link: string) => [...known().instances].some((id) => tapName(installation, id) === link)
    for (const vpcId of known().vpcs) {
      const look = async (vpc: VpcState) => {
        const { network } = vpc
        if (network === null || vpc.nics.size === 0 || !(await isNamespace(this.namespaceOf(vpcId)))) return
        const explained = {
          cidr: network.cidr,
          isTap,
          cards: this.#cards(vpc),
          gateways: network.subnets.map(({ gateway }) => gateway),
          rules: await vpc.rules.expected(this.#plan(vpc, network), options),
        }
        found.push(...(await vpcOrphans(this.namespaceOf(vpcId), explained, options)))
      }
      await this.#inTurn(vpcId, options, look)
    }
    return found
  }

  /** Namespace, uplink and the routes between them. */
  async #prepare(namespace: string, network: DesiredNetwork, vpc: VpcState, options: Abortable): Promise<void> {
    await this.#ensureNamespace(namespace, vpc, [...vpc.nics.keys()], options)
    await this.#connect(namespace, network, Promise.resolve(), options)
  }

  /** The namespace alone. `taps` are those that a VMM may have. */
  async #ensureNamespace(namespace: string, vpc: VpcState, taps: readonly string[], options: Abortable): Promise<void> {
    if (!(await isNamespace(namespace))) {
      // what lives in it keeps it, its links and its rules; only the name has gone
      const holder = await findHolder(this.#directoryOf(namespace), taps)
      if (holder !== null) await nameNamespace(namespace, holder, options)
    }
    const isNew = await ensureNamespace(namespace, options)
    if (isNew) vpc.rules.beginEmpty()
    else vpc.rules.forget()
  }

  /** The namespace's way to the host, and its service address. The namespace is there when `ready`. */
  async #connect(namespace: string, network: DesiredNetwork, ready: Promise<void>, options: Abortable): Promise<void> {
    const inside = { namespace, ready }
    const uplink = await this.#uplinks.ensure(network.vpc_id, inside, options)
    const lines = [
      'link set lo up',
      `addr replace ${serviceAddress}/32 dev lo`,
      `addr replace ${uplink.insideAddress}/31 dev ${uplinkInside}`,
      `link set ${uplinkInside} up`,
      `route replace default via ${uplink.outsideAddress}`,
      `route replace unreachable ${network.cidr}`, // unassigned addresses get no proxy-ARP answer, nor do they go out
    ]
    await together(
      setSysctls(namespace, [`net.ipv4.conf.${uplinkInside}.proxy_arp=0`], options),
      ipBatch(namespace, lines, options),
    )
    this.#options.metadata.open(network.vpc_id, namespace)
  }

  #plan(vpc: VpcState, network: DesiredNetwork): RulesetPlan {
    return { cidr: network.cidr, nics: this.#cards(vpc), groups: [...this.#groups.values()] }
  }

  /** The cards that are attached to a VPC, each with the public address that it has by now. */
  #cards(vpc: VpcState): Nic[] {
    return [...vpc.nics.values()].map((nic) => ({ ...nic, public_ip: this.#addresses.of(nic.tap) }))
  }

  #rulesDiffer(vpc: VpcState): boolean {
    return vpc.network !== null && vpc.rules.differFrom(this.#plan(vpc, vpc.network))
  }

  #directoryOf(namespace: string): string {
    return join(this.#options.runtimeDirectory, namespace)
  }

  #vpc(vpcId: string): VpcState {
    const existing = this.#vpcs.get(vpcId)
    if (existing !== undefined) return existing
    const vpc = newVpcState(() => this.#onChange())
    this.#vpcs.set(vpcId, vpc)
    return vpc
  }

  #inTurn<T>(vpcId: string, options: Required<Abortable>, work: (vpc: VpcState) => Promise<T>): Promise<T> {
    return inTurn(this.#vpc(vpcId), options, work)
  }
}
