import { consoleChunkBytes } from '@berth/contract/hosts/agent-protocol.ts'
import type { HostDriver } from '../host-driver.ts'
import type { InstanceRecord } from '../instance/record.ts'
import type { Timers } from '../sys/timers.ts'
import { type ReadyMarker, SerialScanner } from './ready-marker.ts'

/** How often the log is looked at even if no notice of new output came, milliseconds. */
const lookEveryMs = 2000

export interface SerialEvents {
  onKernel: () => void
  onReady: (marker: ReadyMarker) => void
  /** So many bytes of the log are gone; the record notes them before this returns. */
  onDropped: (bytes: number) => void
}

/**
 * Reads the serial log of an instance as it grows: for the marks of a boot, from where that boot starts, and for the
 * server, from where it says it wants more. Positions are bytes since the instance was created.
 */
export class SerialFollower {
  readonly #driver: HostDriver
  readonly #record: InstanceRecord
  readonly #timers: Timers
  readonly #on: SerialEvents
  #scanner = new SerialScanner()
  #position: number
  #unwatch: (() => void) | null = null
  #endLooking: (() => void) | null = null
  #reading: Promise<void> = Promise.resolve()
  #queued = false

  constructor(driver: HostDriver, record: InstanceRecord, timers: Timers, on: SerialEvents) {
    this.#driver = driver
    this.#record = record
    this.#timers = timers
    this.#on = on
    this.#position = record.boot_serial_start
  }

  /** What comes from here on belongs to a new boot; gives the position, which the caller notes. */
  beginBoot(): number {
    this.#scanner = new SerialScanner()
    return this.#position
  }

  /** Follow the log of the current boot. */
  start(): void {
    if (this.#unwatch !== null) return
    this.#unwatch = this.#driver.watchSerial(this.#record.id, () => this.#look())
    this.#endLooking = this.#timers.every(lookEveryMs, () => this.#look())
    this.#look()
  }

  stop(): void {
    this.#unwatch?.()
    this.#unwatch = null
    this.#endLooking?.()
    this.#endLooking = null
  }

  /** Resolves when everything that was noticed has been read. */
  settled(): Promise<void> {
    this.#look()
    return this.#reading
  }

  /** How far the log has been read, in bytes since the instance was created. */
  get end(): number {
    return this.#position
  }

  /** Up to one chunk of output from a position on; what the host has dropped already is skipped. */
  async read(position: number): Promise<{ offset: number; data: Buffer }> {
    const offset = Math.max(position, this.#record.serial_dropped)
    const data = await this.#driver.readSerial(this.#record.id, offset - this.#record.serial_dropped, consoleChunkBytes)
    return { offset, data }
  }

  #look(): void {
    if (this.#queued) return
    this.#queued = true
    this.#reading = this.#reading.then(async () => {
      this.#queued = false
      await this.#readNew().catch(() => undefined) // the file may be gone with the instance
    })
  }

  /**
   * The log can be shorter than what was read of it: an agent was killed between cutting it and noting that, or its end
   * was lost with the host's power. Its end then counts as what was read last.
   */
  async #noteLostBytes(): Promise<void> {
    const size = await this.#driver.serialSize(this.#record.id)
    const lost = this.#position - (this.#record.serial_dropped + size)
    if (lost <= 0) return
    this.#on.onDropped(lost)
  }

  async #readNew(): Promise<void> {
    await this.#noteLostBytes()
    for (;;) {
      const { offset, data } = await this.read(this.#position)
      if (data.length === 0) break
      this.#position = offset + data.length
      const { kernel, ready } = this.#scanner.scan(data)
      if (kernel) this.#on.onKernel()
      if (ready !== null) this.#on.onReady(ready)
    }
    const dropped = await this.#driver.trimSerial(this.#record.id)
    if (dropped > 0) this.#on.onDropped(dropped)
  }
}
