import type { ObservedStep } from '@berth/contract/hosts/agent-protocol.ts'
import { endsBoot } from '@berth/contract/instances/machine-troubles.ts'
import type { Logger } from 'pino'
import type { AgentSettings } from '../config.ts'
import type { ReadyMarker } from '../console/ready-marker.ts'
import { SerialFollower } from '../console/serial-follower.ts'
import type { HostDriver, Vmm } from '../host-driver.ts'
import { LedgerUnavailable } from '../ledger.ts'
import type { Guest } from '../metadata/guest.ts'
import { gatewayFor, isSameNic, type Nic } from '../network/nic.ts'
import type { AgentMetrics } from '../report/metrics.ts'
import type { Timers } from '../sys/timers.ts'
import { adoptVmm } from './adoption.ts'
import { BoundedCalls } from './bounded-calls.ts'
import { described, type Intent } from './intent.ts'
import { logOf } from './log.ts'
import { graceOf, type InstanceAction, panicPolicyOf, planInstance } from './plan.ts'
import { InstanceProgress } from './progress.ts'
import type { InstanceRecord } from './record.ts'
import { InstanceShutdown } from './shutdown.ts'
import { InstanceStart } from './start.ts'
import { InstanceSteps, stepError } from './steps.ts'

/** Pause before an act that failed is planned anew, milliseconds. */
const afterFailureMs = 2000

export interface WorkerEnvironment {
  driver: HostDriver
  settings: AgentSettings
  log: Logger
  metrics: AgentMetrics
  now: () => number
  timers: Timers
  /** Make the record durable and have it reported. */
  save: (record: InstanceRecord) => void
  /** Give the server the rest of the serial output; returns also when the server cannot be reached. */
  flushConsole: (id: string) => Promise<void>
  /** Have the state of downloads reported. */
  reportProgress: () => void
}

/**
 * Drives one instance to what is desired of it: plan, act, plan again, one act at a time. It and its InstanceProgress
 * are the only ones that write the instance's record. An act that takes long looks at the newest intent while it waits,
 * and every call of the driver has a deadline, so a delete never stands behind a download, a slow shutdown or a call that
 * hangs (docs/decisions/0014).
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
  readonly #calls: BoundedCalls
  readonly #beginning: InstanceStart
  readonly #ending: InstanceShutdown
  #intent: Intent
  #vmm: Vmm | null = null
  /** The VMM whose guest has had its grace. */
  #hadGrace: Vmm | null = null
  #wake: () => void = () => {}
  #dirty = true
  /** The record has changed since it was last written down. */
  #unsaved = false
  #stopped = false
  /** A change of the card was begun and has not succeeded: it may be neither as before nor as asked for. */
  #cardInDoubt = false
  readonly #stopping = new AbortController()
  /** Gives up the start that is under way. */
  #abort = new AbortController()
  #running: Promise<void> | null = null

  constructor(env: WorkerEnvironment, record: InstanceRecord, intent: Intent) {
    this.#env = env
    this.record = record
    this.#intent = intent
    this.#log = logOf(env.log, record.id, () => this.#intent.instance.operation_id)
    this.#progress = new InstanceProgress(record, env.settings.crash, env.now, () => env.save(record), {
      attemptFailed: (step) => env.metrics.stepFailures.inc({ step }),
      stepEnded: (step) => {
        env.metrics.stepEnded(step)
        const { name, status, attempt, error } = step
        this.#log.info({ step: name, status, attempt, ...(error === null ? {} : { code: error.code }) }, 'step ended')
      },
      vmmLost: (cause) => env.metrics.vmmsLost.inc({ cause }),
      troubled: (reason) => {
        env.metrics.troubles.inc({ reason })
        this.#log.warn({ reason }, 'the machine does not run its guest')
      },
    })
    this.#calls = new BoundedCalls({
      windDownMs: env.settings.windDownMs,
      timers: env.timers,
      log: this.#log,
      onLate: () => this.#removeAgain(),
    })
    this.#ending = new InstanceShutdown({
      progress: this.#progress,
      calls: this.#calls,
      timers: env.timers,
      log: this.#log,
      timeoutMs: env.settings.deadlinesMs.shutdown,
    })
    this.#serial = new SerialFollower(env.driver, record, env.timers, {
      onKernel: () => this.#note(() => this.#progress.kernelSeen()),
      onReady: (marker) => this.guestReady(marker),
      onDropped: () => this.#note(() => this.#progress.save()),
    })
    this.#beginning = new InstanceStart({
      record,
      driver: env.driver,
      progress: this.#progress,
      steps: new InstanceSteps(this.#progress, this.#calls, env.settings, env.timers, this.#log),
      serial: this.#serial,
      log: this.#log,
      now: env.now,
      reportProgress: env.reportProgress,
      onVmm: (vmm) => this.#follow(vmm),
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

  /** The VMM that it follows, null while there is none. */
  get vmm(): Vmm | null {
    return this.#vmm
  }

  /** What a guest that asks is told; null while it has no card, or not everything about it is known. */
  get guest(): Guest | null {
    const { nic, image, started_at: startedAt } = this.record
    const { instance, network } = this.#intent
    if (nic === null || image === null || network === null) return null
    return { instance, network, image, nic, startedAt }
  }

  /** The guest says that its first boot is over. */
  guestReady(marker: ReadyMarker): void {
    // who waited for this looks at the console next
    this.#note(() => {
      if (this.#progress.guestReady(marker)) void this.#env.flushConsole(this.record.id)
    })
  }

  /** Take in whether the VMM that runs since `startedAt` has its tap open. */
  noteTap(open: boolean, startedAt: number): void {
    const { power, started_at: since } = this.record
    if (power === 'running' && since === startedAt) this.#note(() => this.#progress.tapSeen(open))
  }

  /** Take in why the rules of its groups are not all in force, null when they are. */
  noteRules(fault: string | null): void {
    const { nic, power, conditions } = this.record
    const failed = conditions.NetworkReady?.status === 'false'
    const mended = failed && power === 'running' && nic !== null && this.#isCurrent(nic)
    this.#note(() => this.#progress.networkSeen(fault, { mended }))
  }

  /** Serial output that the server has not got yet. */
  get serial(): SerialFollower {
    return this.#serial
  }

  /** Stop working and let go of the VMM; it runs on. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#stopping.abort()
    this.#nudge()
    await this.#running
    this.#serial.stop()
    this.#vmm?.detach()
  }

  async #run(): Promise<void> {
    await this.#adoptUntilKnown()
    while (!this.#stopped) {
      this.#dirty = false
      try {
        if (this.#unsaved) this.#progress.save()
        this.#unsaved = false
        this.#notice()
        const action = planInstance(this.#intent.instance, this.#situation(), this.#env.now())
        if (action.kind === 'none' || action.kind === 'wait') {
          if (action.kind === 'none') this.#progress.settled()
          await this.#idle(action)
        } else {
          await this.#performMeasured(action)
        }
      } catch (error) {
        this.#log.error({ err: error }, 'the act failed; it is tried again')
        this.#unsaved ||= error instanceof LedgerUnavailable
        await this.#pause(afterFailureMs)
      }
    }
  }

  /** Take in an event; what cannot be written down now is saved before the next act. */
  #note(event: () => void): void {
    try {
      event()
    } catch (error) {
      this.#log.error({ err: error }, 'an event could not be saved; it is tried again')
      this.#unsaved = true
      this.#nudge()
    }
  }

  /**
   * Nothing may be started before it is known whether a VMM runs already. To remove an instance that need not be known:
   * the clean-up ends whatever runs.
   */
  async #adoptUntilKnown(): Promise<void> {
    while (!this.#stopped) {
      try {
        return await this.#adopt()
      } catch (error) {
        if (this.#intent.instance.power === 'deleted') return
        this.#log.error({ err: error }, 'looking for a running VMM failed; it is tried again')
        this.#dirty = false
        await this.#pause(afterFailureMs)
      }
    }
  }

  #adopt(): Promise<void> {
    const { driver, settings } = this.#env
    return adoptVmm({
      record: this.record,
      driver,
      progress: this.#progress,
      calls: this.#calls,
      serial: this.#serial,
      log: this.#log,
      timeoutMs: settings.deadlinesMs.boot,
      onVmm: (vmm) => this.#follow(vmm),
      onLost: (cause) => this.#lost(cause),
    })
  }

  /** The VMM is gone. That is no crash of an instance that is to go off anyway. */
  #lost(cause: 'crash' | 'host'): void {
    const { trouble } = this.record
    const hasFailed = trouble !== null && endsBoot(trouble.reason)
    if (this.#intent.instance.power !== 'running') this.#progress.off('host')
    else if (cause === 'host') this.#progress.hostRestarted()
    else if (hasFailed && panicPolicyOf(this.#intent.instance) === 'stop') this.#progress.stoppedAfterPanic()
    else this.#progress.crashed()
  }

  /** Take in what the VMM did since the last look. */
  #notice(): void {
    const { record } = this
    const { instance } = this.#intent
    if (record.seen_generation !== instance.generation) {
      this.#progress.see(instance.generation, instance.power_since)
    }
    const vmm = this.#vmm
    if (vmm !== null && !vmm.exited()) this.#noticeGuest(vmm)
    // what had begun to go, by the host or by itself, is seen off by the act that follows
    if (vmm === null || !vmm.exited() || vmm.guestState() === 'off' || record.power === 'shutting_down') return
    this.#vmm = null
    this.#log.error('the VMM ended unexpectedly')
    this.#lost('crash')
  }

  #noticeGuest(vmm: Vmm): void {
    const guest = vmm.guestState()
    const { power } = this.record
    // adopted, and started by an agent that was killed before it could note that it runs
    if ((power === 'starting' || power === 'off') && guest !== 'off' && guest !== 'unreachable') {
      this.#progress.cpusRun(this.#env.now())
      this.#serial.start()
    }
    this.#progress.guestSeen(guest)
  }

  #situation() {
    const { record } = this
    const { crash } = this.#env.settings
    return {
      vmm: this.#vmmSituation(),
      removed: record.power === 'absent',
      off_cause: record.off_cause,
      off_generation: record.off_generation,
      reboots: record.reboots,
      failed_generation: record.failure === null ? null : record.seen_generation,
      restart_not_before: record.restart_not_before,
      nic_current: record.nic === null || this.#isCurrent(record.nic),
      address_stale: record.nic !== null && !['', this.#intent.instance.public_ip].includes(record.nic.public_ip),
      longest_pause_ms: crash.firstPauseMs * 2 ** crash.maxQuickDeaths,
    } as const
  }

  #isCurrent(nic: Nic): boolean {
    const { instance, network } = this.#intent
    const { driver } = this.#env
    // a subnet's gateway stays what it is, so one that is not described has the card's
    const wanted = driver.wantedNic(instance, gatewayFor(instance, network) ?? nic.gateway, this.record.slot)
    return !this.#cardInDoubt && isSameNic(nic, wanted) && driver.keepsAddress(instance.vpc_id, nic)
  }

  #vmmSituation() {
    if (this.#vmm === null) return 'none'
    const guest = this.#vmm.guestState()
    if (guest === 'off') return 'guest_off'
    if (this.record.power === 'shutting_down') return 'shutting_down'
    return guest !== 'running' && endsBoot(guest) ? 'guest_failed' : 'running'
  }

  async #performMeasured(action: Exclude<InstanceAction, { kind: 'none' | 'wait' }>): Promise<void> {
    const startedAt = performance.now()
    const acted = (outcome: 'done' | 'failed') =>
      this.#env.metrics.acted(action.kind, outcome, performance.now() - startedAt)
    try {
      await this.#perform(action)
      acted('done')
    } catch (error) {
      acted('failed')
      throw error
    }
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

  #startInstance(): Promise<void> {
    this.#abort = new AbortController()
    return this.#beginning.run(this.#intent, { unwanted: this.#abort.signal, stopping: this.#stopping.signal })
  }

  /** Have the network card of a machine as it is asked for by now. */
  async #changeNetwork(): Promise<void> {
    const { instance } = this.#intent
    const network = described(this.#intent.network, 'network_failed', `network ${instance.vpc_id}`)
    this.#abort = new AbortController()
    const given = AbortSignal.any([this.#abort.signal, this.#stopping.signal])
    this.#cardInDoubt = true
    const call = {
      name: 'network',
      timeoutMs: this.#env.settings.deadlinesMs.network,
      signal: given,
      work: (signal: AbortSignal) => this.#env.driver.ensureNetwork(instance, network, this.record.slot, { signal }),
    }
    const { nic } = await this.#calls.run(call).catch((error) => {
      if (!given.aborted) this.#progress.networkNotChanged(stepError(error, 'network'))
      throw error
    })
    this.#cardInDoubt = false
    this.record.nic = nic
    this.#progress.networkSeen(this.#env.driver.rulesFault(this.record.vpc_id, nic), { mended: true })
    this.#progress.save()
  }

  /** Power button, then time for the guest, then the end of the process. */
  async #shutdown(): Promise<void> {
    const vmm = this.#vmm
    if (vmm === null) return
    const step = this.#progress.resumeStep('shutdown')
    this.record.power = 'shutting_down'
    this.#progress.save()
    if (this.#hadGrace !== vmm) {
      await this.#ending.giveGrace(vmm, {
        seconds: () => graceOf(this.#intent.instance),
        givenUp: () => this.#stopped,
        pause: (ms) => {
          this.#dirty = false
          return this.#pause(ms)
        },
      })
    }
    if (this.#stopped) return
    this.#hadGrace = vmm
    if (await this.#powerOff(vmm, step)) this.#progress.off('host')
  }

  async #quitAfterGuestOff(): Promise<void> {
    const vmm = this.#vmm
    if (vmm === null) return
    // a shutdown that an agent before this one began is the host's doing
    const { power, reboots } = this.#intent.instance
    const asked = this.record.power === 'shutting_down' || power !== 'running' || reboots.count > this.record.reboots
    if (await this.#powerOff(vmm, null)) this.#progress.off(asked ? 'host' : 'guest')
  }

  /** End a guest that cannot go on. What follows is told from the record, as also when an agent finds it ended. */
  async #endFailed(): Promise<void> {
    const vmm = this.#vmm
    if (vmm !== null && (await this.#powerOff(vmm, null))) this.#lost('crash')
  }

  /**
   * End the process; tried again for as long as it takes, since nothing may be done beside it. Gives false when it is
   * left to the clean-up of a deleted instance, which has a way of its own.
   */
  async #powerOff(vmm: Vmm, step: ObservedStep | null): Promise<boolean> {
    try {
      await this.#ending.end(vmm, step)
      this.#vmm = null
      return true
    } catch (error) {
      if (this.#intent.instance.power !== 'deleted') throw error
      this.#log.error({ err: error }, 'the VMM does not end; the clean-up is left to end it')
      vmm.detach()
      this.#vmm = null
      return false
    }
  }

  async #remove(): Promise<void> {
    const { record } = this
    const step = this.#progress.resumeStep('clean-up')
    this.#progress.save()
    this.#serial.stop()
    await this.#serial.settled()
    await this.#env.flushConsole(record.id)
    try {
      await this.#calls.run({
        name: 'clean-up',
        timeoutMs: this.#env.settings.deadlinesMs['clean-up'],
        work: (signal) => this.#env.driver.remove(record.id, record.vpc_id, { signal }),
        besideOthers: true, // what they bring after all is removed again
      })
    } catch (error) {
      this.#progress.endStep(step, 'failed', stepError(error, 'clean-up'))
      this.#progress.save()
      throw error
    }
    this.#progress.endStep(step, 'succeeded')
    this.#progress.removed()
    this.#log.info('removed')
  }

  /** A call that was given up has ended after all, perhaps after its instance was removed. */
  async #removeAgain(): Promise<void> {
    const { id, vpc_id: vpcId, power } = this.record
    if (power !== 'absent') return
    const signal = AbortSignal.timeout(this.#env.settings.deadlinesMs['clean-up'])
    await this.#env.driver.remove(id, vpcId, { signal })
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
    const end = ms === null ? null : this.#env.timers.after(Math.max(0, ms), resolve)
    await promise
    end?.()
    this.#wake = () => {}
  }
}
