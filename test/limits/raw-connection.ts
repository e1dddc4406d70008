import { connect, type Socket } from 'node:net'

/** A TCP connection that sends bytes as they are, for requests that no HTTP client would send. */
export class RawConnection {
  /** Resolves to everything that was received, once the server has closed the connection. */
  readonly closed: Promise<string>
  /** Resolves when it is connected or refused. */
  readonly connected: Promise<void>
  readonly #socket: Socket
  readonly #watchers = new Set<() => void>()
  #received = ''

  /** With `halfOpen` its own end stays open when the server has ended. */
  constructor(port: number, options: { halfOpen?: boolean } = {}) {
    this.#socket = connect({ port, host: '127.0.0.1', allowHalfOpen: options.halfOpen ?? false })
    this.#socket.setEncoding('utf8')
    this.#socket.on('data', (data: string) => {
      this.#received += data
      for (const watcher of this.#watchers) watcher()
    })
    this.#socket.on('error', () => undefined) // a reset is one way of being closed
    this.connected = new Promise((resolve) => {
      this.#socket.once('connect', resolve)
      this.#socket.once('close', () => resolve())
    })
    this.closed = new Promise((resolve) => {
      this.#socket.once('close', () => resolve(this.#received))
      if (options.halfOpen === true) this.#socket.once('end', () => resolve(this.#received))
    })
  }

  send(text: string): void {
    this.#socket.write(text)
  }

  /** Take nothing more of what the server sends. */
  stopReading(): void {
    this.#socket.pause()
  }

  resumeReading(): void {
    this.#socket.resume()
  }

  /** Resolves when what was received matches. */
  received(pattern: RegExp): Promise<string> {
    return new Promise((resolve) => {
      const look = () => {
        if (!pattern.test(this.#received)) return
        this.#watchers.delete(look)
        resolve(this.#received)
      }
      this.#watchers.add(look)
      look()
    })
  }

  /** Go on for ever sending a byte at each turn of the event loop that the kernel takes one. */
  drip(text: string): void {
    const next = () => {
      if (this.#socket.destroyed) return
      this.#socket.write(text, () => setImmediate(next))
    }
    next()
  }

  close(): void {
    this.#socket.destroy()
  }
}
