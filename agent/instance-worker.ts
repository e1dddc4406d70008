import { setTimeout as delay } from 'node:timers/promises'
import type { Desired, DesiredInstance, DesiredNetwork, HostCondition } from '@berth/contract/host.ts'
import type { CatalogueImage } from '@berth/contract/images.ts'
import type { StepName } from '@berth/contract/operations.ts'
import type { Logger } from 'pino'
import { type HostDriver, HostError, type Vmm } from './host-driver.ts'
import { graceOf, type InstanceAction, planInstance } from './instance-plan.ts'
import { InstanceProgress } from './instance-progress.ts'
import type { InstanceRecord } from './instance-record.ts'
import { SerialFollower } from './serial-follower.ts'

/** A guest that is just starting may not hear the power button, so it is pressed again; milliseconds. */
const buttonEveryMs = 2000

/** Pauses before another attempt of a step, milliseconds. */
const retryPausesMs = [1000, 5000]

export interface WorkerEnvironment {
  driver: HostDriver
  log: Logger
  now: () => number
  /** Make the record durable and have it reported. */
  save: (record: InstanceRecord) => void
  /** Give the server the rest of the serial output; returns also when the server cannot be reached. */
  flushConsole: (id: string) => Promise<void>
  /** Have the state of downloads reported. */
  reportProgress: () => void
}

/** What an instance is to be, with what it refers to. */
export interface Intent {
  instance: DesiredInstance
  /** null when the desired state does not describe it; then the instance cannot start, but it can stop and go. */
  network: DesiredNetwork | null
  image: CatalogueImage | null
}

/** The intent for an instance out of a whole desired state. */
export function intentOf(desired: Desired, instance: DesiredInstance): Intent {
  const network = desired.networks.find((candidate) => candidate.vpc_id === instance.vpc_id) ?? null
  const image = desired.images.find((candidate) => candidate.id === instance.image_id) ?? null
  return { instance, network, image }
}

/**
 * Drives one instance to what is desired of it: plan, act, plan again, one act at a time. It and its InstanceProgress
 * are the only ones that write the instance's record. An act that takes long looks at the newest intent while it waits, so a delete never
 * stands behind a download or a slow shutdown.
 *
 * The record's `power` over the life of an instance; each change is saved before the next line runs:
 *
 *   off ─start─▶ starting ─CPUs run─▶ running ─stop, delete, reboot─▶ shutting_down ─gone─▶ off ─remove─▶ absent
 *                                        └─ guest powers off, VMM dies ─▶ off
 */
export class InstanceWorker {
  readonly record: InstanceRecord
  readonly #env: WorkerEnvironment
  readonly #log: Logger
  readonly #progress: InstanceProgress
  readonly #serial: SerialFollower
  #intent: Intent
  #vmm: Vmm | null = null
  #wake: () => void = () => {}
  #dirty = true
  #stopped = false
  #abort = new AbortController()
  #running: Promise<void> | null = null

  constructor(env: WorkerEnvironment, record: InstanceRecord, intent: Intent) {
    this.#env = env
    this.record = record
    this.#intent = intent
    this.#log = env.log.child({ instance: record.id })
    this.#progress = new InstanceProgress(record, env.now, () => env.save(record))
    this.#serial = new SerialFollower(env.driver, record, {
      onKernel: () => this.#progress.kernelSeen(),
      onReady: (marker) => {
        // who waited for this looks at the console next
        if (this.#progress.guestReady(marker)) void env.flushConsole(record.id)
      },
      onDropped: () => this.#progress.save(),
    })
  }

  /** Look for a VMM that runs already, then begin to work. */
  start(): void {
    this.#running ??= this.#run().catch((error) => this.#log.error({ err: error }, 'the worker ended'))
  }

  /** Take a newer intent; what is being done for an older one is given up where that is possible. */
  setIntent(intent: Intent): void {
    const before = this.#intent.instance
    if (JSON.stringify(before) === JSON.stringify(intent.instance)) {
      this.#intent = intent
      return
    }
    this.#intent = intent
    if (before.power === 'running' && intent.instance.power !== 'running') this.#abort.abort()
    this.#nudge()
  }

  /** Serial output that the server has not got yet. */
  get serial(): SerialFollower {
    return this.#serial
  }

  /** Stop working and let go of the VMM; it runs on. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#abort.abort()
    this.#nudge()
    await this.#running
    this.#serial.stop()
    this.#vmm?.detach()
  }

  async #run(): Promise<void> {
    await this.#adoptUntilKnown()
    while (!this.#stopped) {
      this.#dirty = false
      this.#notice()
      const action = planInstance(this.#intent.instance, this.#situation(), this.#env.now())
      if (action.kind === 'none' || action.kind === 'wait') {
        if (action.kind === 'none') this.#progress.settled()
        await this.#idle(action)
        continue
      }
      try {
        await this.#perform(action)
      } catch (error) {
        this.#log.error({ err: error, action: action.kind }, 'the act failed; it is tried again')
        await this.#pause(2000)
      }
    }
  }

  /** Nothing may be started before it is known whether a VMM runs already. */
  async #adoptUntilKnown(): Promise<void> {
    while (!this.#stopped) {
      try {
        return await this.#adopt()
      } catch (error) {
        this.#log.error({ err: error }, 'looking for a running VMM failed; it is tried again')
        this.#dirty = false
        await this.#pause(2000)
      }
    }
  }

  async #adopt(): Promise<void> {
    const { record } = this
    if (record.power === 'absent') return
    const vmm = await this.#env.driver.adopt(record.id)
    if (vmm !== null) {
      this.#log.info('adopted the running VMM')
      this.#follow(vmm)
      if (vmm.guestState() === 'running' && record.power !== 'shutting_down') {
        if (record.power !== 'running') this.#progress.cpusRun(this.#env.now())
        this.#serial.start()
      }
      return
    }
    if (record.power === 'running')
      this.#progress.lost(record.host_boot_id === this.#env.driver.hostBootId ? 'crash' : 'host')
    else if (record.power === 'shutting_down') this.#progress.off('host')
    else if (record.power === 'starting') this.#progress.off('host')
  }

  /** Take in what the VMM did since the last look. */
  #notice(): void {
    const { record } = this
    const { instance } = this.#intent
    if (record.seen_generation !== instance.generation) this.#progress.see(instance.generation)
    const vmm = this.#vmm
    if (vmm?.exited()) {
      this.#vmm = null
      this.#log.error('the VMM ended unexpectedly')
      this.#progress.lost('crash')
    }
  }

  #situation() {
    const { record } = this
    return {
      vmm: this.#vmmSituation(),
      removed: record.power === 'absent',
      off_cause: record.off_cause,
      off_generation: record.off_generation,
      reboots: record.reboots,
      failed_generation: record.failure === null ? null : record.seen_generation,
      restart_not_before: record.restart_not_before,
    } as const
  }

  #vmmSituation() {
    if (this.#vmm === null) return 'none'
    if (this.#vmm.guestState() === 'off') return 'guest_off'
    return this.record.power === 'shutting_down' ? 'shutting_down' : 'running'
  }

  async #perform(action: Exclude<InstanceAction, { kind: 'none' | 'wait' }>): Promise<void> {
    this.#log.info({ action: action.kind }, 'acting')
    switch (action.kind) {
      case 'start':
        return this.#startInstance()
      case 'shutdown':
        return this.#shutdown()
      case 'reboot':
        this.record.reboots = action.count // saved by the shutdown before it acts: at most once
        return this.#shutdown()
      case 'quit':
        return this.#quitAfterGuestOff()
      case 'remove':
        return this.#remove()
    }
  }

  /** Image, disk, network, VMM. Gives up when the instance shall not run any more; reports when it cannot. */
  async #startInstance(): Promise<void> {
    const { record } = this
    const { instance } = this.#intent
    const { driver, now } = this.#env
    this.#abort = new AbortController()
    const { signal } = this.#abort
    this.#progress.starting(instance.reboots.count)
    try {
      const image = described(this.#intent.image ?? record.image, 'image_not_available', `image ${instance.image_id}`)
      const network = described(this.#intent.network, 'network_failed', `network ${instance.vpc_id}`)
      record.image = image // a disk that is made from it outlives its entry in the catalogue
      await this.#step('image', 'ImageReady', signal, () =>
        driver.ensureImage(instance, image, { signal, onProgress: this.#env.reportProgress }),
      )
      record.timeline.image_ready_at ??= now()
      await this.#step('disk', 'DiskReady', signal, () => driver.ensureDisk(instance, network, image))
      record.timeline.disk_ready_at ??= now()
      const { netns, nic } = await this.#step('network', 'NetworkReady', signal, () =>
        driver.ensureNetwork(instance, network, record.slot),
      )
      record.timeline.network_ready_at = now()
      record.netns = netns
      record.nic = nic
      await this.#serial.settled()
      this.#serial.beginBoot()
      this.#progress.booting(driver.hostBootId)
      const vmm = await this.#step('boot', null, signal, () => driver.start(instance, nic, record.slot))
      this.#follow(vmm)
      this.#progress.cpusRun(now())
      this.#serial.start()
    } catch (error) {
      if (signal.aborted) {
        this.#progress.abandoned()
        return
      }
      const known = hostError(error, 'vmm_start_failed')
      this.#log.error({ err: error }, 'the instance cannot be started')
      this.#progress.failed(known)
    }
  }

  /** Run one step of a start with its record in the report; a failure that may pass is tried again after a pause. */
  async #step<T>(
    name: StepName,
    condition: HostCondition | null,
    signal: AbortSignal,
    work: () => Promise<T>,
  ): Promise<T> {
    const step = this.#progress.beginStep(name)
    for (;;) {
      signal.throwIfAborted()
      step.attempt++
      step.status = 'running'
      this.#progress.save()
      try {
        const value = await work()
        this.#progress.endStep(step, 'succeeded')
        if (condition !== null) this.#progress.setCondition(condition, 'true')
        return value
      } catch (error) {
        const known = hostError(error, stepFailures[name] ?? 'vmm_start_failed')
        step.error = { code: known.code, message: known.message }
        const pauseMs = retryPausesMs[step.attempt - 1]
        if (signal.aborted || !known.tryAgain || pauseMs === undefined) {
          this.#progress.endStep(step, 'failed')
          if (condition !== null) this.#progress.setCondition(condition, 'false', known.code, known.message)
          throw known
        }
        this.#log.warn({ err: error, step: name, attempt: step.attempt }, 'the step failed; it is tried again')
        this.#progress.save()
        await delay(pauseMs, undefined, { signal }).catch(() => undefined) // what aborts it is looked at above
      }
    }
  }

  /** Power button, then time for the guest, then the end of the process. */
  async #shutdown(): Promise<void> {
    let graceSeconds = graceOf(this.#intent.instance)
    const vmm = this.#vmm
    if (vmm === null) return
    const step = this.#progress.beginStep('shutdown')
    step.attempt = 1
    this.record.power = 'shutting_down'
    this.#progress.save()
    if (graceSeconds > 0) {
      const pressedAt = this.#env.now()
      while (!this.#stopped && !vmm.exited() && vmm.guestState() === 'running') {
        graceSeconds = Math.min(graceSeconds, graceOf(this.#intent.instance)) // a newer intent may only shorten it
        const leftMs = pressedAt + graceSeconds * 1000 - this.#env.now()
        if (leftMs <= 0) break
        this.#dirty = false
        await vmm.powerButton().catch((error) => this.#log.warn({ err: error }, 'the power button did not work'))
        await this.#pause(Math.min(leftMs, buttonEveryMs))
      }
      if (this.#stopped) return
    }
    await vmm.quit()
    this.#vmm = null
    this.#progress.endStep(step, 'succeeded')
    this.#progress.off('host')
  }

  async #quitAfterGuestOff(): Promise<void> {
    const vmm = this.#vmm
    if (vmm === null) return
    // a shutdown that an agent before this one began is the host's doing
    const { power, reboots } = this.#intent.instance
    const asked = this.record.power === 'shutting_down' || power !== 'running' || reboots.count > this.record.reboots
    await vmm.quit()
    this.#vmm = null
    this.#progress.off(asked ? 'host' : 'guest')
  }

  async #remove(): Promise<void> {
    const { record } = this
    const step = this.#progress.beginStep('clean-up')
    step.attempt++
    this.#progress.save()
    this.#serial.stop()
    await this.#serial.settled()
    await this.#env.flushConsole(record.id)
    await this.#env.driver.remove(record.id, record.vpc_id)
    this.#progress.endStep(step, 'succeeded')
    this.#progress.removed()
    this.#log.info('removed')
  }

  #follow(vmm: Vmm): void {
    this.#vmm = vmm
    vmm.onChange(() => this.#nudge())
  }

  #nudge(): void {
    this.#dirty = true
    this.#wake()
  }

  async #idle(action: { kind: 'none' } | { kind: 'wait'; untilMs: number }): Promise<void> {
    if (this.#dirty) return
    await this.#pause(action.kind === 'wait' ? action.untilMs - this.#env.now() : null)
  }

  /** Wait for a nudge, at most so long. */
  async #pause(ms: number | null): Promise<void> {
    if (this.#dirty || this.#stopped) return
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wake = resolve
    const timer = ms === null ? null : setTimeout(resolve, Math.max(0, ms))
    await promise
    if (timer !== null) clearTimeout(timer)
    this.#wake = () => {}
  }
}

function described<T>(part: T | null, code: string, what: string): T {
  if (part !== null) return part
  throw new HostError(code, `the server does not describe ${what}`, { retryable: true })
}

/** The code of a failure that says nothing itself, by the step it came from. */
const stepFailures: Partial<Record<StepName, string>> = {
  image: 'image_download_failed',
  disk: 'disk_failed',
  network: 'network_failed',
}

function hostError(error: unknown, code: string): HostError {
  if (error instanceof HostError) return error
  const message = error instanceof Error ? error.message : String(error)
  return new HostError(code, message, { cause: error, retryable: true, tryAgain: true })
}
