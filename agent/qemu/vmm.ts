import type { Vmm } from '../host-driver.ts'
import { isAlive, killProcess, type ProcessIdentity, readProcessUsage, waitForExit } from '../sys/process.ts'
import { Qmp } from './qmp.ts'

/** How often the process of a VMM without a QMP connection is looked for, milliseconds. */
const aliveCheckMs = 1000

/** Pause before a guest that waits for disk space is told to go on, milliseconds. */
const continueMs = 3000

/** Time QEMU gets to end after `quit` before it is killed, milliseconds. */
const quitMs = 5000

/**
 * A QEMU process with its QMP connection. When the connection breaks while the process lives, it is made anew. The
 * process belongs to nobody: letting go of this object leaves it running.
 */
export class QemuVmm implements Vmm {
  readonly process: ProcessIdentity
  readonly #qmpPath: string
  readonly #uuid: string
  #qmp: Qmp
  #guest: 'running' | 'off' = 'running'
  #exited = false
  #detached = false
  #listener: () => void = () => {}

  private constructor(process: ProcessIdentity, qmpPath: string, uuid: string, qmp: Qmp) {
    this.process = process
    this.#qmpPath = qmpPath
    this.#uuid = uuid
    this.#qmp = qmp
  }

  /** Take a process over. Throws when it does not answer QMP in time or is not the machine `uuid`. */
  static async attach(process: ProcessIdentity, qmpPath: string, uuid: string, timeoutMs: number): Promise<QemuVmm> {
    const vmm = new QemuVmm(process, qmpPath, uuid, await connectTo(qmpPath, uuid, timeoutMs))
    await vmm.#listen()
    return vmm
  }

  guestState(): 'running' | 'off' {
    return this.#guest
  }

  exited(): boolean {
    return this.#exited
  }

  onChange(listener: () => void): void {
    this.#listener = listener
    if (this.#exited || this.#guest === 'off') listener()
  }

  async powerButton(): Promise<void> {
    await this.#qmp.execute('system_powerdown')
  }

  async usage() {
    const [{ cpuMs, memoryBytes }, answer] = await Promise.all([
      readProcessUsage(this.process),
      this.#qmp.execute('query-blockstats', {}, 2000),
    ])
    const { read, written } = diskBytes(answer)
    return { cpu_ms: cpuMs, memory_bytes: memoryBytes, disk_read_bytes: read, disk_written_bytes: written }
  }

  async quit(): Promise<void> {
    await this.#qmp.execute('quit', {}, 2000).catch(() => undefined) // the connection may end before the answer
    if (!(await waitForExit(this.process, quitMs))) await killProcess(this.process)
    this.#ended()
  }

  detach(): void {
    this.#detached = true
    this.#qmp.close()
  }

  async #listen(): Promise<void> {
    this.#qmp.on('event', ({ event }) => {
      if (event === 'SHUTDOWN' || event === 'STOP' || event === 'RESUME') void this.#refresh()
    })
    this.#qmp.once('close', () => void this.#reconnect())
    await this.#refresh()
  }

  /** Ask what the guest does; an event only says that it may have changed. */
  async #refresh(): Promise<void> {
    try {
      const status = await this.#qmp.execute('query-status')
      const word = typeof status === 'object' && status !== null ? Reflect.get(status, 'status') : undefined
      this.#guest = word === 'shutdown' ? 'off' : 'running'
      if (word === 'io-error') this.#continueLater()
      if (word === 'internal-error') await killProcess(this.process) // it cannot go on: counts as a crash
      this.#listener()
    } catch {
      // the connection has ended; #reconnect sees to it
    }
  }

  /** QEMU holds a guest whose disk cannot be written, for want of room on the host; it goes on when there is some. */
  #continueLater(): void {
    setTimeout(() => {
      if (!this.#detached && !this.#exited) void this.#qmp.execute('cont').catch(() => undefined)
    }, continueMs).unref()
  }

  async #reconnect(): Promise<void> {
    while (!this.#detached && !this.#exited) {
      if (await waitForExit(this.process, aliveCheckMs)) return this.#ended()
      try {
        // the socket's directory is the VMM's own: what answers there must still be this machine
        this.#qmp = await connectTo(this.#qmpPath, this.#uuid, aliveCheckMs)
        if (this.#detached) return this.#qmp.close()
        return await this.#listen()
      } catch {
        if (!(await isAlive(this.process))) return this.#ended()
      }
    }
  }

  #ended(): void {
    if (this.#exited) return
    this.#exited = true
    this.#qmp.close()
    this.#listener()
  }
}

/** Bytes the guest read and wrote, out of QEMU's answer to query-blockstats, which counts at the guest's devices. */
function diskBytes(answer: unknown): { read: number; written: number } {
  const devices = Array.isArray(answer) ? answer : []
  const disk: unknown = devices.find((node: unknown) => Reflect.get(Object(node), 'node-name') === 'disk')
  const stats = Object(Reflect.get(Object(disk), 'stats'))
  return { read: Number(stats.rd_bytes ?? 0), written: Number(stats.wr_bytes ?? 0) }
}

/** A connection to exactly this machine. */
async function connectTo(qmpPath: string, uuid: string, timeoutMs: number): Promise<Qmp> {
  const qmp = await Qmp.connect(qmpPath, timeoutMs)
  try {
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
