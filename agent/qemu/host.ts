import { type FSWatcher, watch } from 'node:fs'
import { chmod, mkdir, readFile, rm, stat, statfs } from 'node:fs/promises'
import { availableParallelism, totalmem } from 'node:os'
import { join } from 'node:path'
import type {
  DesiredImage,
  DesiredInstance,
  DesiredNetwork,
  HostOrphan,
  ObservedImage,
  RemovedImage,
} from '@berth/contract/hosts/agent-protocol.ts'
import { instanceUuid, tapName, vmUid } from '@berth/contract/hosts/names.ts'
import { bytesPerGib } from '@berth/contract/units.ts'
import type { Logger } from 'pino'
import { diskFiles, ensureOverlay, exists } from '../disk/disks.ts'
import { renderSeed, renderVendorData, seedNetworkOf, writeSeed } from '../disk/seed.ts'
import {
  type CardTraffic,
  type DesiredNetworks,
  type HostDriver,
  HostError,
  type NetworkHealth,
  type Vmm,
} from '../host-driver.ts'
import { ImageDownloadError } from '../image/download-error.ts'
import { imagePath } from '../image/files.ts'
import { observeImages } from '../image/report.ts'
import type { ImageStore } from '../image/store.ts'
import { seedSerialNumber } from '../metadata/credentials.ts'
import type { GuestDesk } from '../metadata/guest.ts'
import { type MetadataKeys, openKeys } from '../metadata/keys.ts'
import { namespaceListeners } from '../metadata/listener.ts'
import { MetadataService } from '../metadata/service.ts'
import type { NetworkFault } from '../network/network-fault.ts'
import { type Nic, nicOf } from '../network/nic.ts'
import { VpcNetworks } from '../network/vpc-networks.ts'
import { entriesOf, type KnownObjects, knownSince, runtimeProcesses, unexplained } from '../sys/leftovers.ts'
import { killProcess, listProcesses, type ProcessIdentity } from '../sys/process.ts'
import { systemTimers } from '../sys/timers.ts'
import { together } from '../sys/together.ts'
import { type Accelerator, chooseAccelerator } from './accelerator.ts'
import { runtimePaths } from './argv.ts'
import { launchQemu, removeRuntimeDirectory } from './launch.ts'
import { SerialLog } from './serial-log.ts'
import { SerialSpool } from './serial-spool.ts'
import { QemuVmm } from './vmm.ts'

/** What one vCPU, MiB and GiB of the machine is offered as. Memory is never overcommitted; 1 GiB is the host's own. */
const offer = { vcpusPerCpu: 16, hostMemoryMb: 1024, diskFactor: 10 } as const

/** Time a VMM gets to answer when an agent finds it running, before it is `unreachable`; milliseconds. */
const adoptMs = 5000

export interface QemuHostOptions {
  installation: string
  /** `<data>/agent`; instances and caches lie below it. */
  dataDirectory: string
  /** `/run/berth/<installation>`. */
  runtimeDirectory: string
  /** Folder of the files that go into guests. */
  guestDirectory: string
  /** `<data>/images`, on the same file system. */
  imagesDirectory: string
  images: ImageStore
  /** Interface that answers for public addresses; without it only this host reaches them. */
  announceOn?: string
  log: Logger
}

/** The real host: QEMU, qcow2, network namespaces. Needs root. */
export class QemuHost implements HostDriver {
  readonly hypervisor = 'qemu'
  readonly accelerator: Accelerator
  readonly hostBootId: string
  readonly #options: QemuHostOptions
  readonly #metadataKeys: MetadataKeys
  readonly #metadata: MetadataService
  readonly #networks: VpcNetworks
  readonly #vendorData: string
  readonly #serials = new Map<string, SerialLog>()
  #imageWatcher: FSWatcher | null = null

  private constructor(
    options: QemuHostOptions,
    found: { accelerator: Accelerator; hostBootId: string; vendorData: string; metadataKeys: MetadataKeys },
  ) {
    this.#options = options
    this.accelerator = found.accelerator
    this.hostBootId = found.hostBootId
    this.#vendorData = found.vendorData
    this.#metadataKeys = found.metadataKeys
    this.#metadata = new MetadataService({
      keys: found.metadataKeys,
      listeners: namespaceListeners,
      renderSeed: ({ instance, network, image }) =>
        renderSeed(instance, seedNetworkOf(instance, network), image, found.vendorData),
      now: Date.now,
      timers: systemTimers,
      log: options.log,
    })
    this.#networks = new VpcNetworks({
      ...options,
      announceOn: options.announceOn ?? null,
      metadata: this.#metadata,
    })
  }

  static async open(options: QemuHostOptions): Promise<QemuHost> {
    await mkdir(join(options.dataDirectory, 'instances'), { recursive: true, mode: 0o700 })
    await mkdir(options.runtimeDirectory, { recursive: true })
    await chmod(options.runtimeDirectory, 0o711) // dnsmasq and the VMMs pass through under their own users
    const hostBootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
    const accelerator = await chooseAccelerator({
      cacheFile: join(options.dataDirectory, 'accelerator.json'),
      uid: vmUid(options.installation, 0),
      hostBootId,
    })
    await ensureTunDevice(options.log)
    await options.images.rescan()
    const vendorData = await renderVendorData(options.guestDirectory)
    const metadataKeys = await openKeys(options.dataDirectory)
    return new QemuHost(options, { accelerator, hostBootId, vendorData, metadataKeys })
  }

  restore(vpcId: string, nic: Nic): void {
    this.#networks.restore(vpcId, nic)
  }

  applyNetworks(desired: DesiredNetworks): void {
    void this.#networks.apply(desired)
  }

  networkFault(vpcId: string, nic: Nic): NetworkFault | null {
    return this.#networks.networkFault(vpcId, nic)
  }

  onNetworkChange(listener: () => void): void {
    this.#networks.onNetworkChange(listener)
  }

  answerGuests(desk: GuestDesk): void {
    this.#metadata.serve(desk)
  }

  healNetworks(taps: ReadonlySet<string>, options: { signal: AbortSignal }): Promise<NetworkHealth> {
    return this.#networks.heal(taps, options)
  }

  async findOrphans(known: () => KnownObjects, options: { signal: AbortSignal }): Promise<HostOrphan[]> {
    const { runtimeDirectory, dataDirectory, images } = this.#options
    const knownMeanwhile = knownSince(known)
    const [processes, files, directories, partials] = await Promise.all([
      runtimeProcesses(runtimeDirectory),
      entriesOf(runtimeDirectory),
      entriesOf(join(dataDirectory, 'instances')),
      images.stalePartials(Date.now()),
    ])
    const { instances, vpcs } = knownMeanwhile()
    const namespaces = new Set([...vpcs].map((vpcId) => this.#networks.namespaceOf(vpcId)))
    const explained = (name: string) => instances.has(name) || namespaces.has(name)
    return [
      ...(await this.#networks.findOrphans(knownMeanwhile, options)),
      ...processes
        .filter(({ of }) => !explained(of))
        .map(({ pid, program, of }) => ({ kind: 'process', name: `${program} ${pid}`, detail: `of ${of}` }) as const),
      ...unexplained('runtime_file', files, explained, `in ${runtimeDirectory}; of no instance and no VPC`),
      ...unexplained('instance_directory', directories, (name) => instances.has(name), 'of no instance of this host'),
      ...unexplained('image_partial', partials, () => false, 'older than a day, and no download writes it'),
    ]
  }

  async capacity() {
    const { blocks, bsize } = await statfs(this.#options.dataDirectory)
    return {
      vcpus: availableParallelism() * offer.vcpusPerCpu,
      memory_mb: Math.max(0, Math.floor(totalmem() / 1024 / 1024) - offer.hostMemoryMb),
      disk_gb: Math.floor((blocks * bsize * offer.diskFactor) / bytesPerGib),
    }
  }

  async images(): Promise<ObservedImage[]> {
    return observeImages(this.#options.images)
  }

  removeImages(images: readonly RemovedImage[]): void {
    this.#options.images.setUnwanted(images)
  }

  onImagesChange(listener: () => void): void {
    this.#imageWatcher?.close()
    // a description is renamed into its place last, so its name says that an image is whole
    this.#imageWatcher = watch(this.#options.imagesDirectory, { persistent: false }, (_event, name) => {
      if (name?.endsWith('.json')) listener()
    })
  }

  async ensureImage(
    instance: DesiredInstance,
    image: DesiredImage,
    options: { signal: AbortSignal; onProgress: () => void },
  ): Promise<void> {
    if (await exists(diskFiles(this.#directoryOf(instance.id)).disk)) return
    try {
      await this.#options.images.ensure(image, { signal: options.signal, onProgress: () => options.onProgress() })
    } catch (error) {
      throw error instanceof ImageDownloadError ? imageError(error) : error
    }
  }

  async ensureDisk(
    instance: DesiredInstance,
    network: DesiredNetwork,
    image: DesiredImage,
    options: { signal: AbortSignal },
  ): Promise<void> {
    const directory = this.#directoryOf(instance.id)
    await mkdir(directory, { recursive: true, mode: 0o700 })
    const { seed } = diskFiles(directory)
    const ensureSeed = async () => {
      if (image.datasource === 'network' || (await exists(seed))) return
      await writeSeed(seed, renderSeed(instance, seedNetworkOf(instance, network), image, this.#vendorData), options)
    }
    await together(
      ensureOverlay(directory, imagePath(this.#options.imagesDirectory, image.id), instance.disk_gb, options),
      ensureSeed(),
    )
  }

  keepsAddress(nic: Nic): boolean {
    return this.#networks.keepsAddress(nic)
  }

  wantedNic(instance: DesiredInstance, gateway: string, slot: number): Nic {
    return nicOf(this.#options.installation, instance, gateway, this.#uid(slot))
  }

  async ensureNetwork(
    instance: DesiredInstance,
    network: DesiredNetwork,
    slot: number,
    { signal }: { signal: AbortSignal },
  ) {
    const { gateway } = seedNetworkOf(instance, network)
    const nic = this.wantedNic(instance, gateway, slot)
    try {
      return { netns: await this.#networks.attach(network, nic, { signal }), nic }
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      const options = { cause: error, retryable: true, tryAgain: true }
      throw new HostError('network_failed', `the network could not be set up: ${why}`, options)
    }
  }

  async start(instance: DesiredInstance, nic: Nic, slot: number, { signal }: { signal: AbortSignal }): Promise<Vmm> {
    // one that an earlier start could not end would write to the same disk
    for (const process of await this.#processesOf(instance.id)) await killProcess(process)
    const instanceDirectory = this.#directoryOf(instance.id)
    const serial = this.#serialOf(instance.id)
    // what its first start gave it, whatever the image says by now
    const seedDisk = await exists(diskFiles(instanceDirectory).seed)
    const launch = {
      machine: {
        id: instance.id,
        uuid: instanceUuid(this.#options.installation, instance.id),
        accelerator: this.accelerator.kind,
        vcpus: instance.vcpus,
        memoryMb: instance.memory_mb,
        tap: nic.tap,
        mac: nic.mac,
        serialNumber: seedDisk ? '' : seedSerialNumber(this.#metadataKeys.nocloud, instance.id),
        runtimeDirectory: this.#runtimeOf(instance.id),
      },
      namespace: this.#networks.namespaceOf(instance.vpc_id),
      uid: this.#uid(slot),
      instanceDirectory,
      seedDisk,
      serialStart: await serial.beginRun(),
    }
    const vmm = await launchQemu(launch, signal)
    await this.#followSerial(instance.id, vmm.process, (spool) => serial.attach(spool))
    return vmm
  }

  /**
   * A VMM that does not answer is never ended for that, and never started a second time: it may be this process that is
   * short of time, or somebody else's that holds the socket.
   */
  async adopt(instanceId: string): Promise<Vmm | null> {
    const processes = await this.#processesOf(instanceId)
    const paths = runtimePaths(this.#runtimeOf(instanceId))
    const own = Number(await readFile(paths.pidFile, 'utf8').catch(() => ''))
    // others have its command line in theirs: a debugger that runs it, for one
    const process = processes.find(({ pid }) => pid === own) ?? processes[0]
    if (process === undefined) return null
    await this.#followSerial(instanceId, process, (spool) => this.#serialOf(instanceId).adopt(spool))
    return QemuVmm.adopt(process, paths.qmp, instanceUuid(this.#options.installation, instanceId), adoptMs)
  }

  async remove(instanceId: string, vpcId: string, { signal }: { signal: AbortSignal }): Promise<void> {
    for (const process of await this.#processesOf(instanceId)) await killProcess(process)
    await this.#networks.detach(vpcId, tapName(this.#options.installation, instanceId), { signal })
    signal.throwIfAborted()
    await this.#serials.get(instanceId)?.close()
    this.#serials.delete(instanceId)
    await removeRuntimeDirectory(this.#runtimeOf(instanceId))
    await rm(this.#directoryOf(instanceId), { recursive: true, force: true })
  }

  traffic(vpcIds: ReadonlySet<string>): Promise<ReadonlyMap<string, CardTraffic>> {
    return this.#networks.traffic(vpcIds)
  }

  async diskAllocated(instanceId: string): Promise<number> {
    const { blocks } = await stat(diskFiles(this.#directoryOf(instanceId)).disk)
    return blocks * 512 // stat(2): whatever the block size of the file system
  }

  collectSerial(instanceId: string, formerStart: number): Promise<number> {
    return this.#serialOf(instanceId).collect(formerStart)
  }

  readSerial(instanceId: string, position: number, maxBytes: number): Promise<{ offset: number; data: Buffer }> {
    return this.#serialOf(instanceId).read(position, maxBytes)
  }

  breakSerial(instanceId: string): Promise<void> {
    return this.#serialOf(instanceId).hostRestarted()
  }

  skipSerial(instanceId: string, position: number): Promise<void> {
    return this.#serialOf(instanceId).skipTo(position)
  }

  watchSerial(instanceId: string, onOutput: () => void): () => void {
    return this.#serialOf(instanceId).watch(onOutput)
  }

  async close(): Promise<void> {
    this.#imageWatcher?.close()
    await Promise.all([...this.#serials.values()].map((serial) => serial.close()))
    await this.#metadata.stop()
    await this.#options.images.close()
  }

  /**
   * The VMM of an instance is found by the UUID on its command line, not by a noted pid (an agent that was killed right
   * after the start has noted none) nor by its uid alone (another installation may have the same).
   */
  #processesOf(instanceId: string) {
    return listProcesses(['-uuid', instanceUuid(this.#options.installation, instanceId)])
  }

  /** A machine whose serial line cannot be followed is a machine all the same. */
  async #followSerial(
    instanceId: string,
    vmm: ProcessIdentity,
    take: (spool: SerialSpool) => Promise<void>,
  ): Promise<void> {
    try {
      const spool = await SerialSpool.of(vmm, instanceId)
      if (spool !== null) await take(spool)
    } catch (error) {
      this.#options.log.error({ err: error, instance_id: instanceId }, 'the serial line cannot be followed')
    }
  }

  #serialOf(instanceId: string): SerialLog {
    const known = this.#serials.get(instanceId)
    if (known !== undefined) return known
    const directory = this.#directoryOf(instanceId)
    const formerWriter = async () => (await this.#processesOf(instanceId))[0] ?? null
    const serial = new SerialLog(directory, diskFiles(directory).serialLog, formerWriter)
    this.#serials.set(instanceId, serial)
    return serial
  }

  #directoryOf(instanceId: string): string {
    return join(this.#options.dataDirectory, 'instances', instanceId)
  }

  #runtimeOf(instanceId: string): string {
    return join(this.#options.runtimeDirectory, instanceId)
  }

  #uid(slot: number): number {
    return vmUid(this.#options.installation, slot)
  }
}

/**
 * The VMMs, which are nobody's users, must be able to open the tun device. udev makes it 0666, and the kernel's
 * documentation says why that is safe (Documentation/networking/tuntap.rst): a tap belongs to one uid. On a machine
 * without udev the mode is set here.
 */
async function ensureTunDevice(log: Logger): Promise<void> {
  const device = '/dev/net/tun'
  const { mode } = await stat(device).catch(() => {
    throw new Error(`this machine has no ${device}; load the kernel module tun`)
  })
  if ((mode & 0o006) === 0o006) return
  log.warn(`${device} can only be opened by root; its mode is set to 0666, as udev does`)
  await chmod(device, 0o666)
}

/** A download's failure under the codes the API promises. */
function imageError(error: ImageDownloadError): HostError {
  const codes: Partial<Record<ImageDownloadError['code'], string>> = {
    bad_checksum: 'image_bad_checksum',
    not_an_image: 'image_invalid',
    image_needs_uefi: 'image_needs_uefi',
    image_not_built: 'image_not_built',
    image_not_available: 'image_not_available',
  }
  const options = { cause: error, retryable: error.retryable }
  return new HostError(codes[error.code] ?? 'image_download_failed', error.message, options)
}
