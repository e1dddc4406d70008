import type { DesiredNetworks, GuestState, HostDriver, Vmm } from '@berth/agent/host-driver.ts'
import type { Nic } from '@berth/agent/network/nic.ts'
import type { SimulatedHost } from '@berth/agent/simulated/host.ts'
import type { SimulatedVmm } from '@berth/agent/simulated/vmm.ts'
import type {
  DesiredImage,
  DesiredInstance,
  DesiredNetwork,
  RemovedImage,
} from '@berth/contract/hosts/agent-protocol.ts'

/** What ends a call that takes too long. */
type Ending = { signal: AbortSignal }

/** Told of what an agent does to a machine that may harm an instance. */
export interface Witness {
  /** In the same moment. */
  started(hostId: string, instance: DesiredInstance): void
  startedTwice(hostId: string, instanceId: string): void
  /** `generation` is the intent under which the VMM was started. */
  quitting(hostId: string, instanceId: string, generation: number, guest: GuestState): void
  removing(hostId: string, instanceId: string): void
}

/** Generation of the intent under which each VMM was started, also by an agent that is dead by now. */
const startedUnder = new WeakMap<SimulatedVmm, number>()

/** Generation of the intent under which a VMM was started. */
export function generationOf(vmm: SimulatedVmm): number {
  return startedUnder.get(vmm) ?? 0
}

const noAnswer = () => new Promise<never>(() => {})

/** A machine in the hands of one agent: when that is dead nothing it asks for happens and no answer comes. */
export class MortalHost implements HostDriver {
  readonly hypervisor = 'simulated'
  readonly accelerator
  readonly #hostId: string
  readonly #machine: SimulatedHost
  readonly #witness: Witness
  readonly #dead: () => boolean

  constructor(hostId: string, machine: SimulatedHost, witness: Witness, dead: () => boolean) {
    this.#hostId = hostId
    this.#machine = machine
    this.#witness = witness
    this.#dead = dead
    this.accelerator = machine.accelerator
  }

  get hostBootId(): string {
    return this.#machine.hostBootId
  }

  restore(): void {}

  answerGuests(): void {}

  networkFault(vpcId: string, nic: Nic) {
    return this.#machine.networkFault(vpcId, nic)
  }

  onNetworkChange(listener: () => void): void {
    this.#machine.onNetworkChange(() => {
      if (!this.#dead()) listener()
    })
  }

  applyNetworks(desired: DesiredNetworks): void {
    if (!this.#dead()) this.#machine.applyNetworks(desired)
  }

  keepsAddress(nic: Nic): boolean {
    return this.#machine.keepsAddress(nic)
  }

  wantedNic(...asked: Parameters<SimulatedHost['wantedNic']>): Nic {
    return this.#machine.wantedNic(...asked)
  }

  healNetworks(taps: ReadonlySet<string>) {
    return this.#alive(() => this.#machine.healNetworks(taps))
  }

  findOrphans(known: Parameters<SimulatedHost['findOrphans']>[0]) {
    return this.#alive(() => this.#machine.findOrphans(known))
  }

  capacity() {
    return this.#alive(() => this.#machine.capacity())
  }

  images() {
    return this.#alive(() => this.#machine.images())
  }

  onImagesChange(): void {}

  removeImages(images: readonly RemovedImage[]): void {
    if (!this.#dead()) this.#machine.removeImages(images)
  }

  ensureImage(
    instance: DesiredInstance,
    image: DesiredImage,
    options: { signal: AbortSignal; onProgress: () => void },
  ) {
    return this.#alive(() => this.#machine.ensureImage(instance, image, options))
  }

  ensureDisk(instance: DesiredInstance, network: DesiredNetwork, image: DesiredImage, options: Ending) {
    return this.#alive(() => this.#machine.ensureDisk(instance, network, image, options))
  }

  ensureNetwork(
    instance: DesiredInstance,
    network: DesiredNetwork,
    slot: number,
    options: Ending,
  ): Promise<{ netns: string; nic: Nic }> {
    return this.#alive(() => this.#machine.ensureNetwork(instance, network, slot, options))
  }

  start(instance: DesiredInstance, nic: Nic, slot: number, options: Ending): Promise<Vmm> {
    return this.#alive(async () => {
      const vmm = await this.#machine.start(instance, nic, slot, options).catch((error) => {
        if (this.#machine.vmmOf(instance.id) !== null) this.#witness.startedTwice(this.#hostId, instance.id)
        throw error
      })
      this.#witness.started(this.#hostId, instance)
      startedUnder.set(vmm, instance.generation)
      return this.#watched(instance.id, vmm)
    })
  }

  adopt(instanceId: string): Promise<Vmm | null> {
    return this.#alive(async () => {
      const vmm = this.#machine.vmmOf(instanceId)
      return vmm === null ? null : this.#watched(instanceId, vmm)
    })
  }

  remove(instanceId: string, vpcId: string, options: Ending) {
    return this.#alive(() => {
      this.#witness.removing(this.#hostId, instanceId)
      return this.#machine.remove(instanceId, vpcId, options)
    })
  }

  traffic() {
    return this.#alive(() => this.#machine.traffic())
  }

  diskAllocated() {
    return this.#alive(() => this.#machine.diskAllocated())
  }

  collectSerial(instanceId: string) {
    return this.#alive(() => this.#machine.collectSerial(instanceId))
  }

  readSerial(instanceId: string, position: number, maxBytes: number) {
    return this.#alive(() => this.#machine.readSerial(instanceId, position, maxBytes))
  }

  breakSerial() {
    return this.#alive(() => this.#machine.breakSerial())
  }

  skipSerial() {
    return this.#alive(() => this.#machine.skipSerial())
  }

  watchSerial(instanceId: string, onOutput: () => void): () => void {
    return this.#dead() ? () => {} : this.#machine.watchSerial(instanceId, onOutput)
  }

  async close(): Promise<void> {}

  #watched(instanceId: string, vmm: SimulatedVmm): Vmm {
    return {
      guestState: () => vmm.guestState(),
      exited: () => vmm.exited(),
      powerButton: () => this.#alive(() => vmm.powerButton()),
      usage: () => this.#alive(() => vmm.usage()),
      quit: () =>
        this.#alive(() => {
          this.#witness.quitting(this.#hostId, instanceId, generationOf(vmm), vmm.guestState())
          return vmm.quit()
        }),
      onChange: (listener) => {
        if (!this.#dead()) vmm.onChange(listener)
      },
      detach: () => vmm.detach(),
    }
  }

  async #alive<T>(work: () => Promise<T>): Promise<T> {
    if (this.#dead()) return noAnswer()
    try {
      const value = await work()
      return this.#dead() ? await noAnswer() : value
    } catch (error) {
      if (this.#dead()) return noAnswer()
      throw error
    }
  }
}
