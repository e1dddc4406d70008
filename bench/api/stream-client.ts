import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

/** A client of the event stream that counts what it gets and checks that the sequence numbers follow each other. */
export class StreamClient {
  /** Sequence numbers of the first and the last event that came, 0 before any has. */
  first = 0
  last = 0
  events = 0
  /** Events whose number was not the one behind that of the event before. */
  gaps = 0
  bytes = 0
  /** When the last event came, milliseconds UTC. */
  lastAt = 0
  readonly #socket: Socket
  #rest = ''
  #wanted = Number.POSITIVE_INFINITY
  #onWanted: () => void = () => {}

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
  }

  /** Resolves when the server has said that the stream is open. */
  static async open(url: string): Promise<StreamClient> {
    const { hostname, port, host } = new URL(url)
    const socket = connect({ host: hostname, port: Number(port) })
    await once(socket, 'connect')
    const opened = Promise.withResolvers<void>()
    const seeHello = (chunk: Buffer) => {
      if (chunk.includes(': connected')) opened.resolve()
    }
    socket.on('data', seeHello)
    const client = new StreamClient(socket)
    socket.write(`GET /v1/events HTTP/1.1\r\nhost: ${host}\r\n\r\n`)
    await opened.promise
    socket.off('data', seeHello)
    return client
  }

  /** Resolves when an event with at least this number has come. */
  async has(sequence: number): Promise<void> {
    if (this.last >= sequence) return
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wanted = sequence
    this.#onWanted = resolve
    await promise
  }

  /**
   * Whether every event from one number to another came, in order. Others may have come before and behind them: a stream
   * shows all that happens while it is open.
   */
  hasAll(first: number, last: number): boolean {
    return this.gaps === 0 && this.events > 0 && this.first <= first && this.last >= last
  }

  close(): void {
    this.#socket.destroy()
  }

  #receive(chunk: Buffer): void {
    this.bytes += chunk.length
    const text = this.#rest + chunk.toString('latin1')
    const end = text.lastIndexOf('\n\n')
    for (let at = text.indexOf('\nid: '); at !== -1 && at < end; at = text.indexOf('\nid: ', at + 5)) {
      const sequence = Number(text.slice(at + 5, text.indexOf('\n', at + 5)))
      if (this.events === 0) this.first = sequence
      else if (sequence !== this.last + 1) this.gaps++
      this.last = sequence
      this.events++
      this.lastAt = Date.now()
    }
    this.#rest = end === -1 ? text : text.slice(end)
    if (this.last >= this.#wanted) this.#onWanted()
  }
}
