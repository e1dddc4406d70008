import { type ConsoleChunk, consolePostBytes, consolePostChunks } from '@berth/contract/hosts/agent-protocol.ts'

/** Hands chunks of different instances to the server; gives where it wants each of them to go on, null for not known. */
export type PostChunks = (chunks: readonly ConsoleChunk[]) => Promise<readonly (number | null)[]>

interface WaitingChunk {
  chunk: ConsoleChunk
  resolve: (nextOffset: number) => void
  reject: (error: unknown) => void
}

/**
 * Gathers serial output into posts, one under way at a time: what comes meanwhile goes with the next one. A host with a
 * thousand instances would otherwise make a thousand requests at the same moment.
 */
export class ConsolePosts {
  readonly #post: PostChunks
  #waiting: WaitingChunk[] = []
  #sending = false

  constructor(post: PostChunks) {
    this.#post = post
  }

  /** Hand over a chunk; gives where the server wants the next one of the instance to start. */
  add(chunk: ConsoleChunk): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    this.#waiting.push({ chunk, resolve, reject })
    if (!this.#sending) void this.#send()
    return promise
  }

  async #send(): Promise<void> {
    this.#sending = true
    while (this.#waiting.length > 0) {
      await new Promise((resolve) => setImmediate(resolve)) // lets chunks of this turn join
      const together = this.#take()
      try {
        const nextOffsets = await this.#post(together.map(({ chunk }) => chunk))
        together.forEach(({ chunk, resolve, reject }, index) => {
          const nextOffset = nextOffsets[index] ?? null
          if (nextOffset !== null) resolve(nextOffset)
          else reject(new Error(`the server does not know instance ${chunk.instance_id} on this host`))
        })
      } catch (error) {
        for (const { reject } of together) reject(error)
      }
    }
    this.#sending = false
  }

  /** The chunks that have waited longest, as many as fit one post; at least one. */
  #take(): WaitingChunk[] {
    let bytes = 0
    const tooMuch = this.#waiting.findIndex(({ chunk }, index) => {
      bytes += Buffer.byteLength(chunk.data, 'base64')
      return index >= consolePostChunks || (index > 0 && bytes > consolePostBytes)
    })
    return this.#waiting.splice(0, tooMuch === -1 ? this.#waiting.length : tooMuch)
  }
}
