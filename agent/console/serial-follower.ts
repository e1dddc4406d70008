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
  async beginBoot(): Promise<number> {
    await this.settled()
    const { id, host_boot_id: bootId } = this.#record
    if (bootId !== '' && bootId !== this.#driver.hostBootId) await this.#driver.breakSerial(id)
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

  /** Up to one chunk of output from a position on; what the host does not have any more is skipped. */
  read(position: number): Promise<{ offset: number; data: Buffer }> {
    return this.#driver.readSerial(this.#record.id, position, consoleChunkBytes)
  }

  /** Go on where the server wants to: it has more than this host, whose disk has lost the end of the log. */
  skipTo(position: number): Promise<void> {
    return this.#driver.skipSerial(this.#record.id, position)
  }

  #look(): void {
    if (this.#queued) return
    this.#queued = true
    this.#reading = this.#reading.then(async () => {
      this.#queued = false
      await this.#readNew().catch(() => undefined) // the file may be gone with the instance
    })
  }

  async #readNew(): Promise<void> {
    for (;;) {
      const end = await this.#driver.collectSerial(this.#record.id, this.#record.serial_dropped)
      // an end that was lost with the host's power counts as what was read last
      this.#position = Math.min(this.#position, end)
      if (this.#position === end) return
      await this.#readUntil(end)
    }
  }

  async #readUntil(end: number): Promise<void> {
    while (this.#position < end) {
      const { offset, data } = await this.read(this.#position)
      if (data.length === 0) {
        this.#position = end // somebody removed the file
        return
      }
      this.#position = offset + data.length
      const { kernel, ready } = this.#scanner.scan(data)
      if (kernel) this.#on.onKernel()
      if (ready !== null) this.#on.onReady(ready)
    }
  }
}
