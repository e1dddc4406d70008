import { randomBytes } from 'node:crypto'
import type {
  DesiredImage,
  DesiredInstance,
  DesiredNetwork,
  HostOrphan,
  ObservedImage,
  RemovedImage,
} from '@berth/contract/hosts/agent-protocol.ts'
import { tapName, vpcNamespaceName } from '@berth/contract/hosts/names.ts'
import type { PolicyGroup } from '@berth/contract/networks/policy.ts'
import type { CardTraffic, DesiredNetworks, HostDriver, HostError, NetworkHealth, Vmm } from '../host-driver.ts'
import type { GuestDesk } from '../metadata/guest.ts'
import { type NetworkFault, networkFault } from '../network/network-fault.ts'
import { gatewayFor, type Nic, nicOf } from '../network/nic.ts'
import { PublicAddresses } from '../network/public-addresses.ts'
import { describeFaults, writtenFaults } from '../network/ruleset/faults.ts'
import { type KnownObjects, knownSince } from '../sys/leftovers.ts'
import { pause, systemTimers, type Timers } from '../sys/timers.ts'
import { untilAborted } from '../sys/until-aborted.ts'
import { SimulatedImages } from './images.ts'
import { SimulatedVmm } from './vmm.ts'

/** Names the simulated host uses where a real one uses its installation id. */
const installation = 'smltd0'

/** The calls that can be made to fail; `quit` ends the process of a VMM. */
export type FaultPoint = 'image' | 'disk' | 'network' | 'start' | 'quit' | 'remove'

interface Hold {
  released: Promise<void>
  /** Whether the calls do not even end when they are told to. */
  deaf: boolean
  /** Calls that have come to it. */
  calls: number
}

export interface SimulatedHostOptions {
  /** Milliseconds each step takes, and a guest from its start to its ready mark and from the button to its end. */
  stepMs?: number
  guestBootMs?: number
  guestShutdownMs?: number
  /** What may be reserved on it. */
  capacity?: { vcpus: number; memory_mb: number; disk_gb: number }
  timers?: Timers
}

interface SimulatedInstance {
  hasDisk: boolean
  hasTap: boolean
  vmm: SimulatedVmm | null
  serial: Buffer
  boots: number
  watchers: Set<() => void>
}

/**
 * A host without machines, for tests, scale and development. It keeps what a real host's kernel and disk keep, so one
 * object outlives the agents that are started on it; nothing of it touches the real host.
 */
export class SimulatedHost implements HostDriver {
  readonly hypervisor = 'simulated'
  readonly accelerator = { kind: 'none', reason: 'simulated: no instance is a real machine' } as const
  /** Another one in each process: what runs here ends with the process, as all does when a host restarts. */
  hostBootId = `simulated-${randomBytes(4).toString('hex')}-boot-1`
  readonly #options: Required<SimulatedHostOptions>
  readonly #instances = new Map<string, SimulatedInstance>()
  /** Ids by the names of their taps: each snapshot asks for the card of every instance. */
  readonly #byTap = new Map<string, string>()
  readonly #images = new SimulatedImages()
  readonly #faults = new Map<FaultPoint, HostError[]>()
  readonly #damages: NetworkHealth['repairs'] = []
  readonly #lostTaps = new Set<string>()
  readonly #held = new Map<FaultPoint, Hold>()
  /** By instance; its kernel keeps them, so they outlive an agent. */
  readonly #addresses = new PublicAddresses()
  #groups: ReadonlyMap<string, PolicyGroup> = new Map()
  #onNetworkChange: () => void = () => {}
  /** Public addresses that others on this host have, by whom. */
  readonly #taken = new Map<string, string>()
  /** How many agents were killed before the one that works now. */
  #agents = 0

  constructor(options: SimulatedHostOptions = {}) {
    const capacity = { vcpus: 1000, memory_mb: 4 * 1024 * 1024, disk_gb: 100 * 1024 }
    this.#options = { stepMs: 5, guestBootMs: 20, guestShutdownMs: 10, capacity, timers: systemTimers, ...options }
  }

  restore(): void {}

  /** It has no packets to filter. */
  applyNetworks({ instances, security_groups: groups }: DesiredNetworks): void {
    this.#addresses.hear(instances.map(({ id: card, public_ip: address }) => ({ card, address })))
    this.#groups = new Map(groups.map((group) => [group.id, group]))
    this.#onNetworkChange()
  }

  networkFault(_vpcId: string, nic: Nic): NetworkFault | null {
    const rules = describeFaults(nic.security_groups, this.#groups, writtenFaults)
    return networkFault(nic.public_ip, { rules, takenBy: this.#taken.get(nic.public_ip) ?? null })
  }

  /** Have a public address led elsewhere on this host, or not any more (null). */
  takeAddress(address: string, by: string | null): void {
    if (by === null) this.#taken.delete(address)
    else this.#taken.set(address, by)
    this.#onNetworkChange()
  }

  onNetworkChange(listener: () => void): void {
    this.#onNetworkChange = listener
  }

  /** What the agent on it knows of its guests, who cannot ask for themselves here; null before an agent was there. */
  desk: GuestDesk | null = null

  answerGuests(desk: GuestDesk): void {
    this.desk = desk
  }

  async healNetworks(taps: ReadonlySet<string>): Promise<NetworkHealth> {
    return { repairs: this.#damages.splice(0), unattached: [...this.#lostTaps].filter((tap) => taps.has(tap)) }
  }

  /** Have something found that is put right at the next look. */
  damageNetwork(damage: NetworkHealth['repairs'][number]): void {
    this.#damages.push(damage)
  }

  /** Damages that no look has found yet. */
  pendingDamages(): number {
    return this.#damages.length
  }

  /** Have an instance's tap taken from under its VMM, which stays without one as long as it runs. */
  loseTap(instanceId: string): void {
    this.#lostTaps.add(tapName(installation, instanceId))
  }

  async findOrphans(known: () => KnownObjects): Promise<HostOrphan[]> {
    const knownMeanwhile = knownSince(known)
    const { instances } = knownMeanwhile()
    const left = [...this.#instances.keys()].filter((id) => !instances.has(id))
    return left.map((id) => ({ kind: 'instance_directory', name: id, detail: 'of no instance of this host' }))
  }

  async capacity() {
    return this.#options.capacity
  }

  async images(): Promise<ObservedImage[]> {
    return this.#images.list()
  }

  onImagesChange(listener: () => void): void {
    this.#images.onChange = listener
  }

  removeImages(images: readonly RemovedImage[]): void {
    this.#images.remove(images)
  }

  /** Make the next calls at a point fail, one error each. */
  failNext(point: FaultPoint, ...errors: HostError[]): void {
    this.#faults.set(point, [...(this.#faults.get(point) ?? []), ...errors])
  }

  /** Failures of a point that have not come yet. */
  pendingFaults(point: FaultPoint): number {
    return this.#faults.get(point)?.length ?? 0
  }

  /** Hold every call at a point until the function that is given is called; calls that hang are deaf to their signal. */
  hold(point: FaultPoint, { deaf = false } = {}): () => void {
    const { promise, resolve } = Promise.withResolvers<void>()
    const hold = { released: promise, deaf, calls: 0 }
    this.#held.set(point, hold)
    return () => {
      if (this.#held.get(point) === hold) this.#held.delete(point)
      resolve()
    }
  }

  /** Calls that have come to the hold at a point. */
  heldAt(point: FaultPoint): number {
    return this.#held.get(point)?.calls ?? 0
  }

  /** The VMM process of an instance that runs, or null. */
  vmmOf(instanceId: string): SimulatedVmm | null {
    const vmm = this.#instances.get(instanceId)?.vmm ?? null
    return vmm === null || vmm.exited() ? null : vmm
  }

  /** Ids of the instances whose VMM process runs. */
  running(): string[] {
    return [...this.#instances.keys()].filter((id) => this.vmmOf(id) !== null)
  }

  keepsAddress({ tap, public_ip: address }: Nic): boolean {
    const id = this.#byTap.get(tap)
    return id === undefined || !this.#instances.has(id) || this.#addresses.of(id) === address
  }

  /** Where packets for public addresses go: the instances by the addresses. */
  publicAddresses(): Record<string, string> {
    const having = [...this.#instances.keys()].filter((id) => this.#addresses.of(id) !== '')
    return Object.fromEntries(having.map((id) => [this.#addresses.of(id), id]))
  }

  /** What the agent had begun comes to nothing, as when it was killed; VMs run on. */
  abandonWork(): void {
    this.#agents++
    this.#addresses.hear([]) // the next one has heard nothing yet
    this.#images.abandon()
    for (const instance of this.#instances.values()) instance.watchers.clear()
  }

  /** Every VMM dies and the host comes up anew. */
  restart(): void {
    this.hostBootId = this.hostBootId.replace(/\d+$/, (boots) => String(Number(boots) + 1))
    for (const [id, instance] of this.#instances) {
      instance.vmm?.die()
      instance.vmm = null
      instance.hasTap = false
      this.#addresses.drop(id)
    }
  }

  /** What would be left on a real host: one line an object. Empty when nothing is. */
  leftovers(): string[] {
    return [...this.#instances].flatMap(([id, instance]) => [
      ...(instance.hasDisk ? [`disk of ${id}`] : []),
      ...(instance.hasTap ? [`tap of ${id}`] : []),
      ...(this.#addresses.of(id) === '' ? [] : [`public address ${this.#addresses.of(id)} of ${id}`]),
      ...(this.vmmOf(id) === null ? [] : [`process of ${id}`]),
    ])
  }

  async ensureImage(
    instance: DesiredInstance,
    image: DesiredImage,
    options: { signal: AbortSignal; onProgress: () => void },
  ): Promise<void> {
    if (this.#instance(instance).hasDisk) return
    await this.#images.have(image, () => this.#work('image', options.signal), options.signal)
  }

  async ensureDisk(
    instance: DesiredInstance,
    _network: DesiredNetwork,
    _image: DesiredImage,
    { signal }: { signal: AbortSignal },
  ): Promise<void> {
    await this.#work('disk', signal)
    this.#instance(instance).hasDisk = true
  }

  wantedNic(instance: DesiredInstance, gateway: string, slot: number): Nic {
    return nicOf(installation, instance, gateway, slot)
  }

  async ensureNetwork(
    instance: DesiredInstance,
    network: DesiredNetwork,
    slot: number,
    { signal }: { signal: AbortSignal },
  ) {
    await this.#work('network', signal)
    const state = this.#instance(instance)
    state.hasTap = true
    this.#addresses.give(instance.vpc_id, instance.id, instance.public_ip)
    const nic = this.wantedNic(instance, gatewayFor(instance, network) ?? '', slot)
    return { netns: vpcNamespaceName(installation, instance.vpc_id), nic }
  }

  async start(instance: DesiredInstance, _nic: Nic, _slot: number, { signal }: { signal: AbortSignal }) {
    await this.#work('start', signal)
    const state = this.#instance(instance)
    if (this.vmmOf(instance.id) !== null) throw new Error(`two VMMs for ${instance.id}`)
    state.boots++
    this.#lostTaps.delete(tapName(installation, instance.id))
    const vmm = new SimulatedVmm({
      bootMs: this.#options.guestBootMs,
      shutdownMs: this.#options.guestShutdownMs,
      timers: this.#options.timers,
      bootId: `${this.hostBootId}-${instance.id.slice(-12)}-${state.boots}`, // never used again, as a kernel's
      userData: instance.user_data === '' ? 'none' : 'ok',
      onSerial: (text) => this.#writeSerial(state, text),
      beforeEnd: () => this.#pass('quit'),
    })
    state.vmm = vmm
    return vmm
  }

  async adopt(instanceId: string): Promise<Vmm | null> {
    return this.vmmOf(instanceId)
  }

  async remove(instanceId: string, _vpcId: string, { signal }: { signal: AbortSignal }): Promise<void> {
    await this.#pass('remove', signal)
    this.#instances.get(instanceId)?.vmm?.die()
    this.#instances.delete(instanceId)
    this.#addresses.drop(instanceId)
    this.#byTap.delete(tapName(installation, instanceId))
  }

  async traffic(): Promise<ReadonlyMap<string, CardTraffic>> {
    return new Map()
  }

  async diskAllocated(): Promise<number> {
    return 0
  }

  async collectSerial(instanceId: string): Promise<number> {
    return this.#instances.get(instanceId)?.serial.length ?? 0
  }

  async readSerial(instanceId: string, position: number, maxBytes: number): Promise<{ offset: number; data: Buffer }> {
    const serial = this.#instances.get(instanceId)?.serial ?? Buffer.alloc(0)
    return { offset: position, data: serial.subarray(position, position + maxBytes) }
  }

  /** Memory keeps all there was of the output. */
  async breakSerial(): Promise<void> {}

  async skipSerial(): Promise<void> {}

  watchSerial(instanceId: string, onOutput: () => void): () => void {
    const watchers = this.#instances.get(instanceId)?.watchers
    watchers?.add(onOutput)
    return () => watchers?.delete(onOutput)
  }

  async close(): Promise<void> {}

  #instance(about: DesiredInstance): SimulatedInstance {
    const existing = this.#instances.get(about.id)
    if (existing !== undefined) return existing
    const instance: SimulatedInstance = {
      hasDisk: false,
      hasTap: false,
      vmm: null,
      serial: Buffer.alloc(0),
      boots: 0,
      watchers: new Set(),
    }
    this.#instances.set(about.id, instance)
    this.#byTap.set(tapName(installation, about.id), about.id)
    return instance
  }

  #writeSerial(instance: SimulatedInstance, text: string): void {
    instance.serial = Buffer.concat([instance.serial, Buffer.from(text)])
    for (const watcher of instance.watchers) watcher()
  }

  async #work(point: FaultPoint, signal: AbortSignal): Promise<void> {
    const { timers, stepMs } = this.#options
    const agents = this.#agents
    if (!this.#held.has(point)) {
      await pause(timers, stepMs, signal)
      signal.throwIfAborted()
    }
    await this.#pass(point, signal)
    if (agents !== this.#agents) await new Promise(() => {}) // who called is dead, and what it had begun with it
  }

  /** Go past a point: wait while it is held, then fail when it is to fail. */
  async #pass(point: FaultPoint, signal?: AbortSignal): Promise<void> {
    const agents = this.#agents
    const hold = this.#held.get(point)
    if (hold !== undefined) {
      hold.calls++
      await (hold.deaf || signal === undefined ? hold.released : untilAborted(hold.released, signal))
    }
    if (agents !== this.#agents) await new Promise(() => {})
    const fault = this.#faults.get(point)?.shift()
    if (fault !== undefined) throw fault
  }
}
