import { setTimeout as delay } from 'node:timers/promises'
import { endsBoot } from '@berth/contract/instances/machine-troubles.ts'
import type { GuestState, Vmm } from '../host-driver.ts'
import {
  isAlive,
  killProcess,
  type ProcessIdentity,
  readProcessUsage,
  signalProcess,
  waitForExit,
} from '../sys/process.ts'
import { Qmp } from './qmp.ts'
import { diskTrouble, guestStateOf } from './run-state.ts'

/** How often the process of a VMM without a QMP connection is looked for, milliseconds. */
const aliveCheckMs = 1000

/** Pause between attempts to connect, milliseconds. */
const connectAgainMs = 250

/** Time a socket that somebody else holds is waited for before the connection is made anew, milliseconds. */
const heldSocketMs = 10 * 60_000

/** Time QEMU gets to end after `quit` or SIGTERM before it is killed, milliseconds. */
const quitMs = 5000

/** Times of the watch over a VMM, milliseconds. */
export interface VmmPace {
  /** How often it is asked what its guest does. */
  lookMs: number
  /** Pause before a guest that waits for its disk is told to go on. */
  continueMs: number
  /** How long it must then run before that is believed: a write that fails again stops it at once. */
  provenMs: number
}

const defaultPace: VmmPace = { lookMs: 3000, continueMs: 3000, provenMs: 1000 }

/** Looks in a row without an answer after which a VMM is `unreachable`: with the pace above, in 6 to 9 s. */
const mostMissedLooks = 2

/**
 * A QEMU process with its QMP connection. The process belongs to nobody: letting go of this object leaves it running,
 * and so does all that keeps QEMU from answering. When the connection breaks while the process lives, it is made anew.
 *
 * What the guest does is asked for at each event that may have changed it, and every few seconds, with one question
 * under way at a time: an answer, however late, makes a VMM that was `unreachable` what it says.
 */
export class QemuVmm implements Vmm {
  readonly process: ProcessIdentity
  readonly #qmpPath: string
  readonly #uuid: string
  readonly #pace: VmmPace
  readonly #lettingGo = new AbortController()
  #qmp: Qmp | null = null
  /** What QEMU said last, and what was told of it. */
  #guest: GuestState = 'running'
  #told: GuestState = 'running'
  #isAsking = false
  #askAgain = false
  #missedLooks = 0
  /** It was told to go on, and has not shown yet that it does. */
  #isContinuing = false
  #exited = false
  #endLooking = () => {}
  #listener: () => void = () => {}

  private constructor(process: ProcessIdentity, qmpPath: string, uuid: string, pace: VmmPace) {
    this.process = process
    this.#qmpPath = qmpPath
    this.#uuid = uuid
    this.#pace = pace
  }

  /** Take over a process that has just been started. Throws when it does not answer in time or is not `uuid`. */
  static async attach(
    process: ProcessIdentity,
    qmpPath: string,
    uuid: string,
    timeoutMs: number,
    pace = defaultPace,
  ): Promise<QemuVmm> {
    const qmp = await connectTo(qmpPath, uuid, timeoutMs)
    const vmm = new QemuVmm(process, qmpPath, uuid, pace)
    await vmm.#use(qmp)
    vmm.#watch()
    return vmm
  }

  /**
   * Take over a process that an agent before this one has left. One that does not answer in time, for whatever reason,
   * is `unreachable` and taken over when it does.
   */
  static async adopt(
    process: ProcessIdentity,
    qmpPath: string,
    uuid: string,
    timeoutMs: number,
    pace = defaultPace,
  ): Promise<QemuVmm> {
    const vmm = new QemuVmm(process, qmpPath, uuid, pace)
    await Promise.race([vmm.#connect(), delay(timeoutMs)])
    if (vmm.#qmp === null) {
      vmm.#missedLooks = mostMissedLooks
      vmm.#tell()
    }
    vmm.#watch()
    return vmm
  }

  guestState(): GuestState {
    return this.#told
  }

  exited(): boolean {
    return this.#exited
  }

  onChange(listener: () => void): void {
    this.#listener = listener
    if (this.#exited || this.#told !== 'running') listener()
  }

  async powerButton(): Promise<void> {
    const qmp = this.#connection()
    // a sleeping machine has nobody who hears the button
    if (this.#guest === 'suspended') await qmp.execute('system_wakeup')
    await qmp.execute('system_powerdown')
  }

  async usage() {
    if (this.#told === 'unreachable') throw new Error('QEMU does not answer')
    const [{ cpuMs, memoryBytes }, answer] = await Promise.all([
      readProcessUsage(this.process),
      this.#connection().execute('query-blockstats', {}, 2000),
    ])
    const { read, written } = diskBytes(answer)
    return { cpu_ms: cpuMs, memory_bytes: memoryBytes, disk_read_bytes: read, disk_written_bytes: written }
  }

  async quit(): Promise<void> {
    try {
      await this.#connection().execute('quit', {}, 2000)
    } catch {
      // the connection may have ended before the answer; else QEMU cannot be asked, and SIGTERM ends it as cleanly
      await signalProcess(this.process, 'SIGTERM')
    }
    if (!(await waitForExit(this.process, quitMs))) await killProcess(this.process)
    this.#ended()
  }

  detach(): void {
    this.#letGo()
  }

  #connection(): Qmp {
    if (this.#qmp === null) throw new Error('there is no connection to QEMU')
    return this.#qmp
  }

  async #use(qmp: Qmp): Promise<void> {
    this.#qmp = qmp
    qmp.on('event', ({ event }) => {
      if (statusEvents.has(event)) void this.#ask()
    })
    qmp.once('close', () => {
      this.#qmp = null
      this.#isAsking = false
      void this.#reconnect()
    })
    await this.#ask()
  }

  #watch(): void {
    const timer = setInterval(() => this.#look(), this.#pace.lookMs)
    timer.unref()
    this.#endLooking = () => clearInterval(timer)
    if (this.#isOver()) this.#endLooking()
  }

  /** Counted in looks, not in time: an agent that was held up itself takes no VMM for silent. */
  #look(): void {
    if (this.#isAsking || this.#qmp === null) {
      this.#missedLooks++
      this.#tell()
    } else {
      void this.#ask()
    }
  }

  /** Ask what the guest does, for as long as it takes; an event only says that it may have changed. */
  async #ask(): Promise<void> {
    const qmp = this.#qmp
    if (qmp === null) return
    if (this.#isAsking) {
      this.#askAgain = true
      return
    }
    this.#isAsking = true
    try {
      do {
        this.#askAgain = false
        const guest = guestStateOf(await qmp.execute('query-status', {}, Number.POSITIVE_INFINITY))
        const isDisk = guest === 'io_error'
        this.#answered(isDisk ? diskTrouble(await qmp.execute('query-block', {}, Number.POSITIVE_INFINITY)) : guest)
      } while (this.#askAgain)
    } catch {
      // the connection has ended; #reconnect sees to it
    } finally {
      if (this.#qmp === qmp) this.#isAsking = false
    }
  }

  #answered(guest: GuestState): void {
    this.#missedLooks = 0
    const unproven = this.#isContinuing && guest === 'running'
    if (!unproven) this.#guest = guest
    if (isDiskTrouble(guest)) void this.#continueLater()
    this.#tell()
  }

  #tell(): void {
    if (this.#isOver()) return
    const silent = this.#missedLooks >= mostMissedLooks && !isFinal(this.#guest)
    const now = silent ? 'unreachable' : this.#guest
    if (now === this.#told) return
    this.#told = now
    this.#listener()
  }

  /** QEMU holds a guest whose disk cannot be written, for want of room on the host; it goes on when there is some. */
  async #continueLater(): Promise<void> {
    if (this.#isContinuing) return
    this.#isContinuing = true
    try {
      await this.#pause(this.#pace.continueMs)
      await this.#qmp?.execute('cont')
      await this.#pause(this.#pace.provenMs)
    } catch {
      // the connection ended, or it was let go
    }
    this.#isContinuing = false
    await this.#ask()
  }

  #pause(ms: number): Promise<void> {
    return delay(ms, undefined, { ref: false, signal: this.#lettingGo.signal })
  }

  async #reconnect(): Promise<void> {
    // a process that ends closes its socket just before
    if (!this.#isOver() && (await waitForExit(this.process, aliveCheckMs))) return this.#ended()
    await this.#connect()
  }

  /** Try until there is a connection, or no process any more. */
  async #connect(): Promise<void> {
    while (!this.#isOver()) {
      const qmp = await this.#attemptConnection()
      if (this.#isOver()) return qmp?.close()
      if (qmp !== null) return this.#use(qmp)
      if (!(await isAlive(this.process))) return this.#ended()
      await this.#pause(connectAgainMs).catch(() => undefined)
    }
  }

  /** A connection to the machine, or null when the attempt failed or the process has ended. */
  async #attemptConnection(): Promise<Qmp | null> {
    const ending = new AbortController()
    const signal = AbortSignal.any([ending.signal, this.#lettingGo.signal])
    // one attempt waits for long: each that is given up stays in the queue of a socket that somebody holds
    const attempt = connectTo(this.#qmpPath, this.#uuid, heldSocketMs, signal).catch(() => null)
    void this.#untilGone(signal).then(
      () => ending.abort(),
      () => undefined,
    )
    try {
      return await attempt
    } finally {
      ending.abort()
    }
  }

  /** Resolves when the process is gone. Throws when the signal is aborted. */
  async #untilGone(signal: AbortSignal): Promise<void> {
    do await delay(aliveCheckMs, undefined, { ref: false, signal })
    while (await isAlive(this.process))
  }

  #isOver(): boolean {
    return this.#exited || this.#lettingGo.signal.aborted
  }

  #letGo(): void {
    this.#endLooking()
    this.#lettingGo.abort()
    this.#qmp?.close()
  }

  #ended(): void {
    if (this.#exited) return
    this.#exited = true
    this.#letGo()
    this.#listener()
  }
}

/** Events of QEMU after which its guest may do something else. */
const statusEvents: ReadonlySet<string> = new Set([
  ...['SHUTDOWN', 'STOP', 'RESUME', 'RESET'],
  ...['SUSPEND', 'WAKEUP', 'GUEST_PANICKED'],
])

function isDiskTrouble(guest: GuestState): boolean {
  return guest === 'io_error' || guest === 'storage_full'
}

/** Whether it stays so until the VMM ends, whether that answers or not. */
function isFinal(guest: GuestState): boolean {
  return guest === 'off' || (guest !== 'running' && endsBoot(guest))
}

/** Bytes the guest read and wrote, out of QEMU's answer to query-blockstats, which counts at the guest's devices. */
function diskBytes(answer: unknown): { read: number; written: number } {
  const devices = Array.isArray(answer) ? answer : []
  const disk: unknown = devices.find((node: unknown) => Reflect.get(Object(node), 'node-name') === 'disk')
  const stats = Object(Reflect.get(Object(disk), 'stats'))
  return { read: Number(stats.rd_bytes ?? 0), written: Number(stats.wr_bytes ?? 0) }
}

/** A connection to exactly this machine. */
async function connectTo(qmpPath: string, uuid: string, timeoutMs: number, signal?: AbortSignal): Promise<Qmp> {
  const qmp = await Qmp.connect(qmpPath, timeoutMs, signal)
  try {
    signal?.throwIfAborted()
    const answer = await qmp.execute('query-uuid', {}, timeoutMs)
    if (answer === null || typeof answer !== 'object' || Reflect.get(answer, 'UUID') !== uuid) {
      throw new Error(`${qmpPath} does not lead to machine ${uuid}`)
    }
    return qmp
  } catch (error) {
    qmp.close()
    throw error
  }
}
