import type { GuestState, Vmm } from '../host-driver.ts'
import type { Timers } from '../sys/timers.ts'

export interface SimulatedGuest {
  bootMs: number
  shutdownMs: number
  bootId: string
  userData: 'ok' | 'failed' | 'none'
  onSerial: (text: string) => void
  /** Waited for before the process is ended. */
  beforeEnd: () => Promise<void>
  timers: Timers
}

/** A VMM without a machine: a guest that boots, answers the power button and can be made to misbehave. */
export class SimulatedVmm implements Vmm {
  /** A guest that does not react to the power button. */
  ignoresButton = false
  /** A process that does not answer: pressing its power button does not end. */
  isSilent = false
  readonly #guest: SimulatedGuest
  readonly #scheduled = new Set<() => void>()
  #state: GuestState = 'running'
  #exited = false
  #listener: () => void = () => {}

  constructor(guest: SimulatedGuest) {
    this.#guest = guest
    guest.onSerial('Linux version 0.0 (simulated)\n')
    this.#later(guest.bootMs, () => this.saysReady())
  }

  guestState(): GuestState {
    return this.#state
  }

  exited(): boolean {
    return this.#exited
  }

  onChange(listener: () => void): void {
    this.#listener = listener
    if (this.#exited || this.#state !== 'running') listener()
  }

  async powerButton(): Promise<void> {
    if (this.isSilent) return new Promise(() => {})
    if (!this.ignoresButton && this.#state === 'running')
      this.#later(this.#guest.shutdownMs, () => this.guestPowersOff())
  }

  /** A machine that is none uses nothing. */
  async usage() {
    return { cpu_ms: 0, memory_bytes: 0, disk_read_bytes: 0, disk_written_bytes: 0 }
  }

  async quit(): Promise<void> {
    if (!this.#exited) await this.#guest.beforeEnd()
    this.die()
  }

  detach(): void {
    this.#listener = () => {}
  }

  /** The guest powers itself off; the process waits to be ended. */
  guestPowersOff(): void {
    this.becomes('off')
  }

  /** The guest does something else: panics, waits for its disk, is not heard of any more, or runs again. */
  becomes(state: GuestState): void {
    if (this.#exited) return
    this.#state = state
    this.#listener()
  }

  /** The process ends, as by SIGKILL. */
  die(): void {
    for (const cancel of this.#scheduled) cancel()
    this.#scheduled.clear()
    if (this.#exited) return
    this.#exited = true
    this.#listener()
  }

  /** The guest says that its first boot is over, which it does by itself after a while. */
  saysReady(): void {
    const { bootId, userData } = this.#guest
    const marker = { boot_id: bootId, user_data: userData, exit_code: null, output_tail: '' }
    this.#guest.onSerial(`BERTH-READY 1 ${Buffer.from(JSON.stringify(marker)).toString('base64')}\n`)
  }

  #later(ms: number, then: () => void): void {
    const cancel = this.#guest.timers.after(ms, () => {
      this.#scheduled.delete(cancel)
      then()
    })
    this.#scheduled.add(cancel)
  }
}
