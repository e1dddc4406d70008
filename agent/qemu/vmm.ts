import type { Vmm } from '../host-driver.ts'
import { isAlive, killProcess, type ProcessIdentity, waitForExit } from '../process.ts'
import { Qmp } from './qmp.ts'

/** How often the process of a VMM without a QMP connection is looked for, milliseconds. */
const aliveCheckMs = 1000

/** Time QEMU gets to end after `quit` before it is killed, milliseconds. */
const quitMs = 5000

/**
 * A QEMU process with its QMP connection. When the connection breaks while the process lives, it is made anew. The
 * process belongs to nobody: letting go of this object leaves it running.
 */
export class QemuVmm implements Vmm {
  readonly process: ProcessIdentity
  readonly #qmpPath: string
  #qmp: Qmp
  #guest: 'running' | 'off' = 'running'
  #exited = false
  #detached = false
  #listener: () => void = () => {}

  private constructor(process: ProcessIdentity, qmpPath: string, qmp: Qmp) {
    this.process = process
    this.#qmpPath = qmpPath
    this.#qmp = qmp
  }

  /** Take a process over. Throws when it does not answer QMP in time or is not the machine `uuid`. */
  static async attach(process: ProcessIdentity, qmpPath: string, uuid: string, timeoutMs: number): Promise<QemuVmm> {
    const qmp = await Qmp.connect(qmpPath, timeoutMs)
    const vmm = new QemuVmm(process, qmpPath, qmp)
    try {
      const answer = await qmp.execute('query-uuid')
      if (answer === null || typeof answer !== 'object' || Reflect.get(answer, 'UUID') !== uuid) {
        throw new Error(`process ${process.pid} is not machine ${uuid}`)
      }
      await vmm.#listen()
      return vmm
    } catch (error) {
      qmp.close()
      throw error
    }
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
      this.#listener()
    } catch {
      // the connection has ended; #reconnect sees to it
    }
  }

  async #reconnect(): Promise<void> {
    while (!this.#detached && !this.#exited) {
      if (await waitForExit(this.process, aliveCheckMs)) return this.#ended()
      try {
        this.#qmp = await Qmp.connect(this.#qmpPath, aliveCheckMs)
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
