import { endsBoot } from '@berth/contract/instances/machine-troubles.ts'
import type { Logger } from 'pino'
import type { AgentSettings } from '../config.ts'
import type { SerialFollower } from '../console/serial-follower.ts'
import type { HostDriver, Vmm } from '../host-driver.ts'
import type { Timers } from '../sys/timers.ts'
import { adoptVmm } from './adoption.ts'
import { BoundedCalls } from './bounded-calls.ts'
import { described, type Intent } from './intent.ts'
import { graceOf, type InstanceAction, panicPolicyOf } from './plan.ts'
import type { InstanceProgress } from './progress.ts'
import { InstanceShutdown } from './shutdown.ts'
import { InstanceStart } from './start.ts'
import { InstanceSteps, stepError } from './steps.ts'
import type { WakeUp } from './wake-up.ts'

/** An action of the plan that something is done for. */
export type InstanceAct = Exclude<InstanceAction, { kind: 'none' | 'wait' }>

export interface ActsOptions {
  driver: HostDriver
  settings: AgentSettings
  progress: InstanceProgress
  serial: SerialFollower
  wakeUp: WakeUp
  timers: Timers
  log: Logger
  now: () => number
  /** The newest intent; an act that takes long looks at it while it waits. */
  intent: () => Intent
  /** The agent stops: what runs is left as it is. */
  stopping: AbortSignal
  /** Give the server the rest of the serial output; returns also when the server cannot be reached. */
  flushConsole: (id: string) => Promise<void>
  /** Have the state of downloads reported. */
  reportProgress: () => void
}

/** Carries out the acts on one instance, and holds its VMM. Every call of the driver has a deadline. */
export class InstanceActs {
  readonly #options: ActsOptions
  readonly #progress: InstanceProgress
  readonly #calls: BoundedCalls
  readonly #beginning: InstanceStart
  readonly #ending: InstanceShutdown
  #vmm: Vmm | null = null
  /** The VMM whose guest has had its grace. */
  #hadGrace: Vmm | null = null
  #cardInDoubt = false
  /** Gives up the start that is under way. */
  #abort = new AbortController()

  constructor(options: ActsOptions) {
    const { driver, settings, progress, serial, timers, log, now, reportProgress } = options
    this.#options = options
    this.#progress = progress
    this.#calls = new BoundedCalls({
      windDownMs: settings.windDownMs,
      timers,
      log,
      onLate: () => this.#removeAgain(),
    })
    this.#ending = new InstanceShutdown({
      progress,
      calls: this.#calls,
      timers,
      log,
      timeoutMs: settings.deadlinesMs.shutdown,
    })
    this.#beginning = new InstanceStart({
      driver,
      progress,
      steps: new InstanceSteps(progress, this.#calls, settings, timers, log),
      serial,
      log,
      now,
      reportProgress,
      onVmm: (vmm) => this.#follow(vmm),
    })
  }

  /** The VMM that is followed, null while there is none. */
  get vmm(): Vmm | null {
    return this.#vmm
  }

  /** A change of the card was begun and has not succeeded: it may be neither as before nor as asked for. */
  get cardInDoubt(): boolean {
    return this.#cardInDoubt
  }

  /** Find the VMM that an agent before this one has left running. Throws when it is not known whether there is one. */
  adopt(): Promise<void> {
    const { driver, settings, serial, log } = this.#options
    return adoptVmm({
      driver,
      progress: this.#progress,
      calls: this.#calls,
      serial,
      log,
      timeoutMs: settings.deadlinesMs.boot,
      onVmm: (vmm) => this.#follow(vmm),
      onLost: (cause) => this.lost(cause),
    })
  }

  /** The VMM is gone without having been asked to go. That is no crash of an instance that is to go off anyway. */
  lost(cause: 'crash' | 'host'): void {
    const { instance } = this.#options.intent()
    const { trouble } = this.#progress.record
    const hasFailed = trouble !== null && endsBoot(trouble.reason)
    this.#vmm = null
    if (instance.power !== 'running') this.#progress.off('host')
    else if (cause === 'host') this.#progress.hostRestarted()
    else if (hasFailed && panicPolicyOf(instance) === 'stop') this.#progress.stoppedAfterPanic()
    else this.#progress.crashed()
  }

  /** What is under way is not wanted any more. */
  giveUp(): void {
    this.#abort.abort()
  }

  /** Let go of the VMM; it runs on. */
  detach(): void {
    this.#vmm?.detach()
  }

  /** Throws when it failed; the act is then planned anew. */
  perform(action: InstanceAct): Promise<void> {
    switch (action.kind) {
      case 'start':
        return this.#start()
      case 'shutdown':
        return this.#shutdown()
      case 'reboot':
        this.#progress.rebooting(action.count) // saved by the shutdown before it acts: at most once
        return this.#shutdown()
      case 'network':
        return this.#changeNetwork()
      case 'quit':
        return this.#quitAfterGuestOff()
      case 'end_failed':
        return this.#endFailed()
      case 'remove':
        return this.#remove()
    }
  }

  #start(): Promise<void> {
    const { intent, stopping } = this.#options
    this.#abort = new AbortController()
    return this.#beginning.run(intent(), { unwanted: this.#abort.signal, stopping })
  }

  /** Have the network card of a machine as it is asked for by now. */
  async #changeNetwork(): Promise<void> {
    const { driver, settings, intent, stopping } = this.#options
    const { instance, network: asked } = intent()
    const network = described(asked, 'network_failed', `network ${instance.vpc_id}`)
    const { slot } = this.#progress.record
    this.#abort = new AbortController()
    const given = AbortSignal.any([this.#abort.signal, stopping])
    this.#cardInDoubt = true
    const call = {
      name: 'network',
      timeoutMs: settings.deadlinesMs.network,
      signal: given,
      work: (signal: AbortSignal) => driver.ensureNetwork(instance, network, slot, { signal }),
    }
    const { nic } = await this.#calls.run(call).catch((error) => {
      if (!given.aborted) this.#progress.networkNotChanged(stepError(error, 'network'))
      throw error
    })
    this.#cardInDoubt = false
    this.#progress.networkChanged(nic, driver.networkFault(instance.vpc_id, nic))
  }

  /** Power button, then time for the guest, then the end of the process. */
  async #shutdown(): Promise<void> {
    const { intent, stopping, wakeUp } = this.#options
    const vmm = this.#vmm
    if (vmm === null) return
    this.#progress.resumeStep('shutdown')
    this.#progress.shuttingDown()
    if (this.#hadGrace !== vmm) {
      await this.#ending.giveGrace(vmm, {
        seconds: () => graceOf(intent().instance),
        givenUp: () => stopping.aborted,
        pause: (ms) => {
          wakeUp.clear()
          return wakeUp.pause(ms)
        },
      })
    }
    if (stopping.aborted) return
    this.#hadGrace = vmm
    if (await this.#powerOff(vmm, { asStep: true })) this.#progress.off('host')
  }

  async #quitAfterGuestOff(): Promise<void> {
    const vmm = this.#vmm
    if (vmm === null) return
    const { power, reboots } = this.#options.intent().instance
    const { record } = this.#progress
    // a shutdown that an agent before this one began is the host's doing
    const asked = record.power === 'shutting_down' || power !== 'running' || reboots.count > record.reboots
    if (await this.#powerOff(vmm, { asStep: false })) this.#progress.off(asked ? 'host' : 'guest')
  }

  /** End a guest that cannot go on. What follows is told from the record, as also when an agent finds it ended. */
  async #endFailed(): Promise<void> {
    const vmm = this.#vmm
    if (vmm !== null && (await this.#powerOff(vmm, { asStep: false }))) this.lost('crash')
  }

  /**
   * End the process; tried again for as long as it takes, since nothing may be done beside it. Gives false when it is
   * left to the clean-up of a deleted instance, which has a way of its own.
   */
  async #powerOff(vmm: Vmm, options: { asStep: boolean }): Promise<boolean> {
    try {
      await this.#ending.end(vmm, options)
      this.#vmm = null
      return true
    } catch (error) {
      const { intent, log } = this.#options
      if (intent().instance.power !== 'deleted') throw error
      log.error({ err: error }, 'the VMM does not end; the clean-up is left to end it')
      vmm.detach()
      this.#vmm = null
      return false
    }
  }

  async #remove(): Promise<void> {
    const { driver, settings, serial, flushConsole, log } = this.#options
    const { id, vpc_id: vpcId } = this.#progress.record
    this.#progress.resumeStep('clean-up')
    this.#progress.save()
    serial.stop()
    await serial.settled()
    await flushConsole(id)
    try {
      await this.#calls.run({
        name: 'clean-up',
        timeoutMs: settings.deadlinesMs['clean-up'],
        work: (signal) => driver.remove(id, vpcId, { signal }),
        besideOthers: true, // what they bring after all is removed again
      })
    } catch (error) {
      this.#progress.endStep('clean-up', 'failed', stepError(error, 'clean-up'))
      this.#progress.save()
      throw error
    }
    this.#progress.endStep('clean-up', 'succeeded')
    this.#progress.removed()
    log.info('removed')
  }

  /** A call that was given up has ended after all, perhaps after its instance was removed. */
  async #removeAgain(): Promise<void> {
    const { driver, settings } = this.#options
    const { id, vpc_id: vpcId, power } = this.#progress.record
    if (power !== 'absent') return
    await driver.remove(id, vpcId, { signal: AbortSignal.timeout(settings.deadlinesMs['clean-up']) })
  }

  #follow(vmm: Vmm): void {
    this.#vmm = vmm
    vmm.onChange(() => this.#options.wakeUp.call())
  }
}
