import { watch } from 'node:fs'
import { SerialSegments } from '../console/serial-segments.ts'
import type { ProcessIdentity } from '../sys/process.ts'
import { SerialSpool } from './serial-spool.ts'

/** Bytes that are taken over in one go; readers have their turn in between. */
const pieceBytes = 64 * 1024
const mostBytesAtOnce = 1024 * 1024

/**
 * Positions that are left out when the host itself restarted: the server may have more of the output than what the
 * host's disk kept of it, which is less than this by far.
 */
const hostRestartGap = 2 ** 30

/** What stands in the log where output is missing. */
const notes = {
  spool_full: 'output is missing here: no agent was there to take it',
  host_restarted: 'the host restarted here; the last output before it may be missing',
  behind_server: 'output is missing here: the host has lost it',
}

/**
 * The serial log of an instance: what its VMM left in the spool is appended to the segments on the data disk. When that
 * disk is full the output waits in the spool.
 */
export class SerialLog {
  readonly #directory: string
  /** The log that an earlier version of the agent had a VMM write itself, and who that VMM is, if it runs. */
  readonly #formerLog: string
  readonly #formerWriter: () => Promise<ProcessIdentity | null>
  #formerSought = false
  #opened: Promise<SerialSegments> | null = null
  #spool: SerialSpool | null = null
  #endWatching: () => void = () => {}
  readonly #listeners = new Set<() => void>()
  /** One after the other: nothing is taken over twice. */
  #turn: Promise<unknown> = Promise.resolve()

  constructor(directory: string, formerLog: string, formerWriter: () => Promise<ProcessIdentity | null>) {
    this.#directory = directory
    this.#formerLog = formerLog
    this.#formerWriter = formerWriter
  }

  /** Take what is left of the last VMM's output; gives where that of the next one begins. */
  beginRun(): Promise<number> {
    return this.#inTurn(async (segments) => {
      await this.#drainAll(segments)
      await this.#letGo()
      return segments.end
    })
  }

  /** Take from now on what a VMM writes. */
  attach(spool: SerialSpool): Promise<void> {
    return this.#inTurn(() => this.#take(spool))
  }

  /** The same of a VMM that ran without an agent. */
  adopt(spool: SerialSpool): Promise<void> {
    return this.#inTurn(async (segments) => {
      const full = await spool.isFull()
      await this.#take(spool)
      await this.#drainAll(segments)
      if (full) await this.#note(segments, 'spool_full', segments.end)
    })
  }

  /**
   * Take over what has come since; gives the position behind the last byte. `formerStart` is the position of the first
   * byte of a log that an earlier version left.
   */
  collect(formerStart: number): Promise<number> {
    return this.#inTurn(async (segments) => {
      await this.#takeFormer(formerStart)
      await this.#drain(segments, mostBytesAtOnce)
      return segments.end
    })
  }

  /** Note that the host restarted since the last output. */
  hostRestarted(): Promise<void> {
    return this.#inTurn(async (segments) => {
      await this.#drainAll(segments)
      if (segments.end > 0) await this.#note(segments, 'host_restarted', segments.end + hostRestartGap)
    })
  }

  /** Go on at a later position: the server has the output up to there already. */
  skipTo(position: number): Promise<void> {
    return this.#inTurn(async (segments) => {
      if (position > segments.end) await this.#note(segments, 'behind_server', position)
    })
  }

  /** Output from a position on, without looking into the spool. */
  async read(position: number, maxBytes: number): Promise<{ offset: number; data: Buffer }> {
    return (await this.#open()).read(position, maxBytes)
  }

  /** Call back soon after new output; gives the function that ends it. */
  watch(onOutput: () => void): () => void {
    this.#listeners.add(onOutput)
    if (this.#listeners.size === 1) this.#watch()
    return () => {
      this.#listeners.delete(onOutput)
      if (this.#listeners.size === 0) this.#endWatching()
    }
  }

  /** Let go of the spool; a VMM that runs goes on writing to it. */
  async close(): Promise<void> {
    await this.#turn
    this.#endWatching()
    await this.#spool?.close({ remove: false })
    this.#spool = null
  }

  #inTurn<T>(work: (segments: SerialSegments) => Promise<T>): Promise<T> {
    const mine = this.#turn.then(async () => work(await this.#open()))
    this.#turn = mine.catch(() => undefined)
    return mine
  }

  #open(): Promise<SerialSegments> {
    this.#opened ??= SerialSegments.open(this.#directory).catch((error) => {
      this.#opened = null
      throw error
    })
    return this.#opened
  }

  async #takeFormer(start: number): Promise<void> {
    if (this.#formerSought || this.#spool !== null) return
    const spool = await SerialSpool.ofLog(this.#formerLog, start, this.#formerWriter)
    this.#formerSought = true
    if (spool !== null) await this.#take(spool)
  }

  async #take(spool: SerialSpool): Promise<void> {
    const before = this.#spool
    this.#spool = spool
    await before?.close({ remove: false })
    if (this.#listeners.size > 0) this.#watch()
  }

  /** What cannot be taken over at the end of a VMM, for want of room, is lost with its spool. */
  async #drainAll(segments: SerialSegments): Promise<void> {
    await this.#drain(segments, Number.POSITIVE_INFINITY).catch(() => undefined)
  }

  async #drain(segments: SerialSegments, mostBytes: number): Promise<void> {
    const spool = this.#spool
    if (spool === null) return
    const written = await spool.isWritten() // asked first: what comes before the end of the VMM is seen below
    const from = segments.takenOf(spool.base)
    if (from === null) await segments.begin(Math.max(spool.base, segments.end), 0)
    let position = from ?? 0
    for (const until = position + mostBytes; position < until; ) {
      const data = await spool.read(position, pieceBytes)
      if (data.length === 0) {
        if (!written) await this.#letGo()
        return
      }
      await segments.append(data)
      position += data.length
      await spool.release(position)
    }
  }

  /** A note is for readers; on a full disk there is none. */
  async #note(segments: SerialSegments, what: keyof typeof notes, position: number): Promise<void> {
    await segments.begin(position, segments.takenOf(0) ?? 0, `\r\n[berth: ${notes[what]}]\r\n`).catch(() => undefined)
  }

  async #letGo(): Promise<void> {
    const spool = this.#spool
    this.#spool = null
    this.#endWatching()
    await spool?.close({ remove: true })
  }

  #watch(): void {
    this.#endWatching()
    if (this.#spool === null) return
    try {
      const watcher = watch(this.#spool.path, { persistent: false }, () => {
        for (const listener of this.#listeners) listener()
      })
      watcher.on('error', () => watcher.close())
      this.#endWatching = () => watcher.close()
    } catch {
      // it cannot be watched: the followers look now and then
    }
  }
}
