import type {
  Desired,
  DesiredImage,
  DesiredInstance,
  DesiredNetwork,
  HostOrphan,
  ObservedImage,
  ObservedRepair,
  RemovedImage,
} from '@berth/contract/hosts/agent-protocol.ts'
import type { MachineTrouble } from '@berth/contract/instances/machine-troubles.ts'
import type { ObservedUsage } from '@berth/contract/instances/usage.ts'
import type { GuestDesk } from './metadata/guest.ts'
import type { NetworkFault } from './network/network-fault.ts'
import type { Nic } from './network/nic.ts'
import type { KnownObjects } from './sys/leftovers.ts'

/**
 * What the agent needs of a host to run instances on it. The real host (qemu/) and the simulated one (simulated/) have
 * this same surface; everything that decides is above it. All calls are idempotent: an agent that was killed half way
 * calls again. A call whose signal is aborted ends soon, with an error, and leaves no process of its own alive; what it
 * has made so far stays for the next call.
 */
export interface HostDriver {
  readonly hypervisor: 'qemu' | 'simulated'
  readonly accelerator: { kind: 'kvm' | 'tcg' | 'none'; reason: string }
  /** Changes when the host itself restarts. */
  readonly hostBootId: string

  /** Note the card of an instance that an earlier run of the agent attached. */
  restore(vpcId: string, nic: Nic): void
  /**
   * Take what is desired of the VPCs and the security groups here; soon after, packets pass by it. Failures are this
   * host's to log and to repair.
   */
  applyNetworks(desired: DesiredNetworks): void

  /** Why a card that was attached is not all that was asked for; null when it is, as far as is known. */
  networkFault(vpcId: string, nic: Nic): NetworkFault | null
  /** Call back when what `networkFault` gives may be another for some card. */
  onNetworkChange(listener: () => void): void

  /** Answer guests that ask for their metadata from what this desk knows, as soon as they can ask. */
  answerGuests(desk: GuestDesk): void
  /**
   * Look whether the networks that have one of these taps are what they should be, and put right what is not. Gives what
   * was put right, and those of the taps that no VMM has open.
   */
  healNetworks(taps: ReadonlySet<string>, options: { signal: AbortSignal }): Promise<NetworkHealth>

  /**
   * What there is of this installation on the host that nothing known explains. `known` is asked before and after the
   * look, so that what comes or goes meanwhile is none.
   */
  findOrphans(known: () => KnownObjects, options: { signal: AbortSignal }): Promise<HostOrphan[]>

  /** What may be reserved on this host: vCPUs, MiB, GiB. */
  capacity(): Promise<{ vcpus: number; memory_mb: number; disk_gb: number }>

  /** Images here, being downloaded, or failed; looks at the folder again. */
  images(): Promise<ObservedImage[]>
  /** Call back soon after another process brought or replaced an image. */
  onImagesChange(listener: () => void): void
  /** Have these downloads gone, now or as soon as they can be removed; replaces what was asked before. */
  removeImages(images: readonly RemovedImage[]): void
  /**
   * Have the image here, unless the instance has its disk already. Throws HostError.
   */
  ensureImage(
    instance: DesiredInstance,
    image: DesiredImage,
    options: { signal: AbortSignal; onProgress: () => void },
  ): Promise<void>
  /** Have root disk and seed; a disk that exists is left as it is. Throws HostError. */
  ensureDisk(
    instance: DesiredInstance,
    network: DesiredNetwork,
    image: DesiredImage,
    options: { signal: AbortSignal },
  ): Promise<void>
  /** The card that an instance is to have here; `gateway` is its subnet's. */
  wantedNic(instance: DesiredInstance, gateway: string, slot: number): Nic
  /**
   * Have the namespace, tap and address in place, and the card as the intent asks for it, but without a public address
   * that is another instance's by now. Throws HostError.
   */
  ensureNetwork(
    instance: DesiredInstance,
    network: DesiredNetwork,
    slot: number,
    options: { signal: AbortSignal },
  ): Promise<{ netns: string; nic: Nic }>
  /** Whether a card that was made has the public address it was made with; another one may have got that since. */
  keepsAddress(nic: Nic): boolean

  /**
   * Start the VMM; resolves once its CPUs run. Waits for that until the signal is aborted. Ends what an earlier start
   * has left. Throws HostError when it does not come up, nothing of it left alive.
   */
  start(instance: DesiredInstance, nic: Nic, slot: number, options: { signal: AbortSignal }): Promise<Vmm>
  /** The VMM of an instance that runs already, or null. One that does not answer is there all the same. */
  adopt(instanceId: string): Promise<Vmm | null>
  /** Leave nothing of an instance: process, tap, namespace when it was the last, disk, seed, logs, sockets. */
  remove(instanceId: string, vpcId: string, options: { signal: AbortSignal }): Promise<void>

  /** What passed the cards of some VPCs since they were made, by the name of the tap. */
  traffic(vpcIds: ReadonlySet<string>): Promise<ReadonlyMap<string, CardTraffic>>
  /** Bytes of this host's disks that the disk of an instance takes. */
  diskAllocated(instanceId: string): Promise<number>

  /**
   * Take over the serial output that came since; gives the position behind its last byte. Positions are bytes since the
   * instance was created. `formerStart` is that of the first byte of a log that an earlier version of the agent kept.
   */
  collectSerial(instanceId: string, formerStart: number): Promise<number>
  /** Output that was taken over, from a position on, at most `maxBytes`; from later on when the host has not got it any more. */
  readSerial(instanceId: string, position: number, maxBytes: number): Promise<{ offset: number; data: Buffer }>
  /** Have what comes next stand where nothing can stand already: the host restarted and may have lost output. */
  breakSerial(instanceId: string): Promise<void>
  /** Have what comes next stand at this position at the least: the server has what is before it. */
  skipSerial(instanceId: string, position: number): Promise<void>
  /** Call back soon after new serial output; gives the function that ends it. */
  watchSerial(instanceId: string, onOutput: () => void): () => void

  close(): Promise<void>
}

/** What is desired of the networks of a host, and which instance has which public address. */
export type DesiredNetworks = Pick<Desired, 'networks' | 'security_groups'> & {
  instances: readonly Pick<DesiredInstance, 'id' | 'public_ip'>[]
}

/** What passed a card: received is what came to the guest. */
export type CardTraffic = Pick<ObservedUsage, 'received_bytes' | 'received_packets' | 'sent_bytes' | 'sent_packets'>

/** A look at the networks of a host. */
export interface NetworkHealth {
  /** What was put right. */
  repairs: Omit<ObservedRepair, 'number' | 'at'>[]
  /** Taps that no VMM has open. */
  unattached: string[]
}

/** What a guest does: its CPUs run, it has powered itself off and the process only waits to be ended, or why neither. */
export type GuestState = 'running' | 'off' | MachineTrouble

/** A running VMM process. */
export interface Vmm {
  /** What the guest does, as far as the process said; `unreachable` while it does not answer. */
  guestState(): GuestState
  /** Press the ACPI power button. */
  powerButton(): Promise<void>
  /** What it used since its start. Throws when it cannot be asked. */
  usage(): Promise<Pick<ObservedUsage, 'cpu_ms' | 'memory_bytes' | 'disk_read_bytes' | 'disk_written_bytes'>>
  /** End the process, by force if need be; resolves when it is gone. */
  quit(): Promise<void>
  /** Called when the guest does something else and when the process is gone; at once when that has happened already. */
  onChange(listener: () => void): void
  /** True once the process is gone. */
  exited(): boolean
  /** Let go of it without ending it. */
  detach(): void
}

/** Others' words, of image sources for one, end up in messages: they are cut so that a report stays acceptable. */
const longestMessage = 4000

/** A failure of the host that the agent reports with a code of the failure catalogue. */
export class HostError extends Error {
  readonly code: string
  /** Whether the same request may succeed later, without anyone changing anything. */
  readonly retryable: boolean
  /** Whether the agent itself should try again soon. */
  readonly tryAgain: boolean

  constructor(code: string, message: string, options: { cause?: unknown; retryable: boolean; tryAgain?: boolean }) {
    super(message.slice(0, longestMessage), options.cause === undefined ? {} : { cause: options.cause })
    this.name = 'HostError'
    this.code = code
    this.retryable = options.retryable
    this.tryAgain = options.tryAgain ?? false
  }
}
