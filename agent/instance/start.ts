import type { Logger } from 'pino'
import type { SerialFollower } from '../console/serial-follower.ts'
import type { HostDriver, Vmm } from '../host-driver.ts'
import { LedgerUnavailable } from '../ledger.ts'
import type { Nic } from '../network/nic.ts'
import { described, type Intent } from './intent.ts'
import type { InstanceProgress } from './progress.ts'
import { type InstanceSteps, stepError } from './steps.ts'

export interface StartOptions {
  driver: HostDriver
  progress: InstanceProgress
  steps: InstanceSteps
  serial: SerialFollower
  log: Logger
  now: () => number
  /** Have the state of downloads reported. */
  reportProgress: () => void
  /** The VMM is there, and is watched from now on. */
  onVmm: (vmm: Vmm) => void
}

/** Starts an instance: image, disk, network, VMM. */
export class InstanceStart {
  readonly #options: StartOptions

  constructor(options: StartOptions) {
    this.#options = options
  }

  /** Gives up when the instance is `unwanted` or the agent is `stopping`; reports when the host cannot. */
  async run(intent: Intent, { unwanted, stopping }: { unwanted: AbortSignal; stopping: AbortSignal }): Promise<void> {
    const { progress, log } = this.#options
    const signal = AbortSignal.any([unwanted, stopping])
    progress.starting(intent.instance.reboots.count)
    try {
      await this.#boot(intent, unwanted, await this.#prepare(intent, signal))
    } catch (error) {
      if (signal.aborted) {
        progress.abandoned()
        return
      }
      if (error instanceof LedgerUnavailable) throw error // no fault of the instance: it is started again
      log.error({ err: error }, 'the instance cannot be started')
      progress.failed(stepError(error, 'boot'))
    }
  }

  /** Have image, disk and network. Gives the network card. */
  async #prepare(intent: Intent, signal: AbortSignal) {
    const { driver, progress, steps, reportProgress } = this.#options
    const { record } = progress
    const { instance } = intent
    const image = described(intent.image ?? record.image, 'image_not_available', `image ${instance.image_id}`)
    const network = described(intent.network, 'network_failed', `network ${instance.vpc_id}`)
    progress.madeFrom(image)
    await steps.run({
      name: 'image',
      condition: 'ImageReady',
      signal,
      work: (ending) => driver.ensureImage(instance, image, { signal: ending, onProgress: reportProgress }),
    })
    await steps.run({
      name: 'disk',
      condition: 'DiskReady',
      signal,
      work: (ending) => driver.ensureDisk(instance, network, image, { signal: ending }),
    })
    const { netns, nic } = await steps.run({
      name: 'network',
      condition: 'NetworkReady',
      signal,
      work: (ending) => driver.ensureNetwork(instance, network, record.slot, { signal: ending }),
    })
    progress.attached(netns, nic)
    progress.networkSeen(driver.networkFault(record.vpc_id, nic))
    return nic
  }

  async #boot({ instance }: Intent, unwanted: AbortSignal, nic: Nic): Promise<void> {
    const { driver, progress, steps, serial, now, onVmm } = this.#options
    const { slot } = progress.record
    progress.booting(driver.hostBootId, await serial.beginBoot())
    const vmm = await steps.run({
      name: 'boot',
      condition: 'Booted',
      signal: unwanted, // an agent that stops lets it come up: the next one adopts it
      work: (ending) => driver.start(instance, nic, slot, { signal: ending }),
      discard: (late) => late.quit(),
    })
    onVmm(vmm)
    serial.start() // reads in a later turn
    progress.cpusRun(now())
  }
}
