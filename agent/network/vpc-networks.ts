import { join } from 'node:path'
import type { DesiredNetwork, HostOrphan } from '@berth/contract/hosts/agent-protocol.ts'
import { tapName, uplinkName, vpcNamespaceName } from '@berth/contract/hosts/names.ts'
import type { PolicyGroup } from '@berth/contract/networks/policy.ts'
import type { Logger } from 'pino'
import type { CardTraffic, DesiredNetworks, NetworkHealth } from '../host-driver.ts'
import type { KnownObjects } from '../sys/leftovers.ts'
import type { Abortable } from '../sys/run-command.ts'
import { together } from '../sys/together.ts'
import { untilAborted } from '../sys/until-aborted.ts'
import { cutForbidden, forgetConnections } from './connections.ts'
import { healVpc, type VpcToHeal } from './healing/healing.ts'
import { findHolder } from './healing/holder.ts'
import { namespaceOrphans, vpcOrphans } from './healing/orphans.ts'
import { serviceAddress, uplinkInside } from './names.ts'
import { ensureNamespace, ipBatch, isNamespace, nameNamespace, removeNamespace, setSysctls } from './namespace.ts'
import type { Nic } from './nic.ts'
import { PublicAddressOwners } from './public-address-owners.ts'
import { NamespaceRules } from './ruleset/namespace-rules.ts'
import type { RulesetPlan } from './ruleset/ruleset.ts'
import { ensureDnsmasq, removeDnsmasq, updateGuests } from './services/dnsmasq.ts'
import { releaseStaleLeases } from './services/leases.ts'
import { ensureTap, removeTap } from './taps.ts'
import { countTraffic } from './traffic.ts'
import { type Uplink, Uplinks } from './uplink/uplinks.ts'

interface VpcState {
  /** The VPC's own network; null until it was heard of. */
  network: DesiredNetwork | null
  nics: Map<string, Nic>
  /** Public addresses that the cards here had when others got them, by tap, until the connections of both are cut. */
  taken: Map<string, string>
  /** Namespace, uplink and DNS were made or looked at by this run of the agent. */
  prepared: boolean
  rules: NamespaceRules
  /** Changes of one VPC happen one after the other. */
  queue: Promise<unknown>
}

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
  /** By taps. */
  readonly #owners = new PublicAddressOwners()
  #groups: readonly PolicyGroup[] = []

  constructor(options: VpcNetworksOptions) {
    this.#options = options
    this.#uplinks = new Uplinks(options.installation, options.announceOn)
  }

  namespaceOf(vpcId: string): string {
    return vpcNamespaceName(this.#options.installation, vpcId)
  }

  /** Note a card that an earlier run of the agent attached, so that the next change of its VPC keeps it. */
  restore(vpcId: string, nic: Nic): void {
    const vpc = this.#vpc(vpcId)
    vpc.nics.set(nic.tap, nic)
    this.#uplinks.restore(vpcId, publicAddresses(vpc))
    this.#options.metadata.open(vpcId, this.namespaceOf(vpcId))
  }

  /** Take the networks and groups that are desired. Resolves when the rulesets that this changes are in force. */
  async apply({ networks, security_groups: groups, instances }: DesiredNetworks): Promise<void> {
    this.#groups = groups
    this.#owners.hear(
      instances.map(({ id, public_ip }) => ({ id: tapName(this.#options.installation, id), public_ip })),
    )
    for (const network of networks) this.#vpc(network.vpc_id).network = network
    const changed = [...this.#vpcs].filter(([, vpc]) => vpc.nics.size > 0 && this.#rulesDiffer(vpc))
    await Promise.all(changed.map(([vpcId]) => this.#reload(vpcId)))
  }

  async #reload(vpcId: string): Promise<void> {
    const signal = AbortSignal.timeout(30_000)
    await this.#inTurn(vpcId, { signal }, async (vpc) => {
      const namespace = this.namespaceOf(vpcId)
      if (vpc.network === null || vpc.nics.size === 0 || !(await isNamespace(namespace))) return
      const plan = this.#plan(vpc, vpc.network)
      await vpc.rules.apply(namespace, plan, { signal })
      await cutForbidden(namespace, plan, { signal })
    }).catch((error) => {
      this.#vpc(vpcId).rules.forget() // so that the next desired state tries again
      this.#options.log.error({ err: error, vpc_id: vpcId }, 'new rules could not be put in force')
    })
  }

  /** Have a card in its VPC's namespace. Gives the namespace's name. Ends early with the signal, perhaps half made. */
  attach(network: DesiredNetwork, asked: Nic, options: Required<Abortable>): Promise<string> {
    return this.#inTurn(network.vpc_id, options, async (vpc) => {
      const nic = this.#owners.isAnothers(asked.public_ip, asked.tap) ? { ...asked, public_ip: '' } : asked
      const namespace = this.namespaceOf(network.vpc_id)
      const before = publicAddresses(vpc)
      const earlier = vpc.nics.get(nic.tap)
      vpc.network = network
      this.#takeAddressFromOthers(nic)
      vpc.nics.set(nic.tap, nic)
      const prepare = !vpc.prepared || !(await isNamespace(namespace))
      vpc.prepared = false
      if (prepare) await this.#ensureNamespace(namespace, vpc, options)
      const reach = async () => {
        if (prepare) await this.#connect(namespace, network, vpc, options)
        else if (before.join() !== publicAddresses(vpc).join())
          await this.#setPublicAddresses(network.vpc_id, vpc, options)
      }
      const nics = [...vpc.nics.values()]
      const directory = this.#directoryOf(namespace)
      // rules name taps by their names, and the guest does not run yet
      await together(
        reach(),
        vpc.rules.apply(namespace, this.#plan(vpc, network), options),
        // the tap first: a dnsmasq that looks at the addresses when it starts may miss one that comes meanwhile
        ensureTap(namespace, nic, options, earlier === undefined ? 'missing' : 'unknown').then(() =>
          ensureDnsmasq(namespace, directory, network, { nics, changed: prepare ? nics : [nic] }, options),
        ),
      )
      options.signal.throwIfAborted()
      if (earlier !== undefined) await this.#cutWhatChanged(namespace, vpc, earlier, nic, options)
      await releaseStaleLeases(namespace, directory, [nic], options).catch((error) => {
        // the next look for damage tries again; a guest with a static address does not miss it
        this.#options.log.warn({ err: error, vpc_id: network.vpc_id }, 'the lease of an address cannot be ended')
      })
      vpc.prepared = true
      return namespace
    })
  }

  /** Whether a card that was attached has the public address it was attached with. */
  keepsAddress(vpcId: string, { tap, public_ip: address }: Nic): boolean {
    const attached = this.#vpcs.get(vpcId)?.nics.get(tap)
    return attached === undefined || attached.public_ip === address
  }

  /** What passed the cards of some VPCs, by the name of the tap. */
  async traffic(vpcIds: ReadonlySet<string>): Promise<ReadonlyMap<string, CardTraffic>> {
    const namespaces = [...vpcIds].map((vpcId) => this.namespaceOf(vpcId))
    const there = await Promise.all(namespaces.map(async (name) => ((await isNamespace(name)) ? [name] : [])))
    const counted = await Promise.all(there.flat().map((namespace) => countTraffic(namespace)))
    return new Map(counted.flatMap((taps) => [...taps]))
  }

  /** Leave nothing of a card; the namespace goes with its last one. Idempotent. Ends early with the signal. */
  detach(vpcId: string, tap: string, options: Required<Abortable>): Promise<void> {
    return this.#inTurn(vpcId, options, async (vpc) => {
      const namespace = this.namespaceOf(vpcId)
      const nic = vpc.nics.get(tap)
      const wasPrepared = vpc.prepared
      vpc.prepared = false // until all of the card is gone
      vpc.nics.delete(tap)
      vpc.taken.delete(tap)
      if (nic !== undefined) this.#options.metadata.disconnect(vpcId, nic.ip)
      if (vpc.nics.size === 0) {
        vpc.rules.forget()
        await removeDnsmasq(this.#directoryOf(namespace))
        await this.#options.metadata.close(vpcId)
        // the links by themselves: somebody's process in the namespace would keep them alive unseen
        if (await isNamespace(namespace)) await removeTap(namespace, tap, options)
        await this.#uplinks.remove(vpcId, options)
        await removeNamespace(namespace, options)
        return
      }
      if (!(await isNamespace(namespace))) return
      if (nic !== undefined && nic.public_ip !== '') {
        await this.#setPublicAddresses(vpcId, vpc, options)
      }
      if (vpc.network !== null) await vpc.rules.apply(namespace, this.#plan(vpc, vpc.network), options)
      await removeTap(namespace, tap, options)
      if (nic !== undefined) await forgetConnections(namespace, [nic.ip, nic.public_ip], options)
      const nics = [...vpc.nics.values()]
      await updateGuests(this.#directoryOf(namespace), nics, wasPrepared ? [] : nics)
      vpc.prepared = wasPrepared
    })
  }

  /** Cut the connections that a card no longer may have, now that the rules for what it is are in force. */
  async #cutWhatChanged(namespace: string, vpc: VpcState, earlier: Nic, nic: Nic, options: Abortable): Promise<void> {
    const address = vpc.taken.get(nic.tap) ?? earlier.public_ip
    if (address !== '' && address !== nic.public_ip) await forgetConnections(namespace, [address], options)
    vpc.taken.delete(nic.tap)
    if (vpc.network !== null) await cutForbidden(namespace, this.#plan(vpc, vpc.network), options)
  }

  /** A public address leads to the card that got it last: the one before may be told of it later. */
  #takeAddressFromOthers({ tap, public_ip: address }: Nic): void {
    if (address === '') return
    for (const { nics, taken } of this.#vpcs.values()) {
      for (const other of nics.values()) {
        if (other.tap === tap || other.public_ip !== address) continue
        nics.set(other.tap, { ...other, public_ip: '' })
        taken.set(other.tap, address)
      }
    }
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
    const nics = [...vpc.nics.values()]
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
          cards: [...vpc.nics.values()],
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
    await this.#ensureNamespace(namespace, vpc, options)
    await this.#connect(namespace, network, vpc, options)
  }

  /** The namespace alone. */
  async #ensureNamespace(namespace: string, vpc: VpcState, options: Abortable): Promise<void> {
    if (!(await isNamespace(namespace))) {
      // what lives in it keeps it, its links and its rules; only the name has gone
      const holder = await findHolder(this.#directoryOf(namespace), [...vpc.nics.keys()])
      if (holder !== null) await nameNamespace(namespace, holder, options)
    }
    const isNew = await ensureNamespace(namespace, options)
    if (isNew) vpc.rules.beginEmpty()
    else vpc.rules.forget()
  }

  /** The namespace's way to the host, and its service address. */
  async #connect(namespace: string, network: DesiredNetwork, vpc: VpcState, options: Abortable): Promise<void> {
    const uplink = await this.#uplinks.ensure(network.vpc_id, namespace, publicAddresses(vpc), options)
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

  #setPublicAddresses(vpcId: string, vpc: VpcState, options: Abortable): Promise<void> {
    return this.#uplinks.setAddresses(vpcId, this.namespaceOf(vpcId), publicAddresses(vpc), options)
  }

  #plan(vpc: VpcState, network: DesiredNetwork): RulesetPlan {
    return { cidr: network.cidr, nics: [...vpc.nics.values()], groups: this.#groups }
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
    const vpc: VpcState = {
      network: null,
      nics: new Map(),
      taken: new Map(),
      prepared: false,
      rules: new NamespaceRules(),
      queue: Promise.resolve(),
    }
    this.#vpcs.set(vpcId, vpc)
    return vpc
  }

  /** Who has not had its turn when its signal is aborted leaves the queue at once. */
  #inTurn<T>(vpcId: string, { signal }: Required<Abortable>, work: (vpc: VpcState) => Promise<T>): Promise<T> {
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

/** Public addresses of the cards of a VPC, sorted. */
function publicAddresses(vpc: VpcState): string[] {
  return [...vpc.nics.values()].flatMap((nic) => (nic.public_ip === '' ? [] : [nic.public_ip])).sort()
}
