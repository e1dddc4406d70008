import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/**
 * How one request is answered. Unless it says otherwise a fault concerns the body and leaves ranges, validators and
 * lengths correct.
 */
export type Fault =
  | { kind: 'serve' }
  /** Announces everything, sends `afterBytes`, cuts the connection. */
  | { kind: 'cut'; afterBytes: number }
  /** Announces everything, sends `afterBytes`, then nothing more. */
  | { kind: 'stall'; afterBytes: number }
  /** Never answers at all. */
  | { kind: 'silence' }
  /** Announces `bytes` less than it sends. */
  | { kind: 'announce-less'; bytes: number }
  | { kind: 'wrong-bytes' }
  /** Answers 200 with everything, whatever was asked. */
  | { kind: 'ignore-range' }
  /** Answers 206 starting `by` bytes away from what was asked. */
  | { kind: 'wrong-offset'; by: number }
  /** Names no version: neither ETag nor Last-Modified. */
  | { kind: 'no-validators' }
  /** From now on another ETag, then as `then`. */
  | { kind: 'new-version'; content: Buffer }
  | { kind: 'redirect'; location: string }
  | { kind: 'status'; status: number }
  /** No length announced, no end. */
  | { kind: 'endless' }
  /** No length announced, correct content. */
  | { kind: 'chunked' }

export interface SeenRequest {
  path: string
  range: string | null
  ifRange: string | null
}

/** An HTTP server on 127.0.0.1 that serves files and misbehaves by script. */
export class FaultyFileServer {
  readonly requests: SeenRequest[] = []
  readonly #server: Server
  readonly #files = new Map<string, Buffer>()
  #script: Fault[] = []
  #waiting: { path: string; count: number; resolve: () => void }[] = []

  #flood = { bytes: Number.POSITIVE_INFINITY, resolve: () => {} }

  private constructor() {
    this.#server = createServer((request, response) => {
      // The client going away is what half of these faults lead to.
      request.on('error', () => undefined)
      response.on('error', () => undefined)
      this.#answer(request, response)
    })
  }

  static async start(): Promise<FaultyFileServer> {
    const server = new FaultyFileServer()
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    server.#server.once('error', reject)
    server.#server.listen(0, '127.0.0.1', resolve)
    await promise
    return server
  }

  get port(): number {
    const address = this.#server.address()
    if (address === null || typeof address === 'string') throw new Error('the server does not listen')
    return address.port
  }

  url(path: string): string {
    return `http://127.0.0.1:${this.port}${path}`
  }

  put(path: string, content: Buffer | string): void {
    this.#files.set(path, Buffer.from(content))
  }

  /** Answer the next requests like this, the last of them from then on. */
  misbehave(...script: Fault[]): void {
    this.#script = script
  }

  /** Resolves once `path` has been asked for `count` times. */
  asked(path: string, count = 1): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#waiting.push({ path, count, resolve })
    this.#tellWaiting()
    return promise
  }

  /** Resolves once endless answers have brought `bytes` to the network. */
  sent(bytes: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#flood = { bytes, resolve }
    return promise
  }

  async close(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#server.close(() => resolve())
    this.#server.closeAllConnections()
    await promise
  }

  #sendEndlessly(response: ServerResponse): void {
    const block = Buffer.alloc(65_536, 0x45)
    let sentBytes = 0
    const pump = () => {
      for (let more = true; more && !response.destroyed; sentBytes += block.length) more = response.write(block)
      if (sentBytes >= this.#flood.bytes) this.#flood.resolve()
    }
    response.writeHead(200)
    response.on('drain', pump)
    pump()
  }

  #tellWaiting(): void {
    const asked = (path: string) => this.requests.filter((request) => request.path === path).length
    for (const { path, count, resolve } of this.#waiting) if (asked(path) >= count) resolve()
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = request.url ?? '/'
    const range = request.headers.range ?? null
    const ifRange = request.headers['if-range'] ?? null
    this.requests.push({ path, range, ifRange: typeof ifRange === 'string' ? ifRange : null })
    const fault = (this.#script.length > 1 ? this.#script.shift() : this.#script[0]) ?? { kind: 'serve' }
    if (fault.kind === 'new-version') this.put(path, fault.content)
    this.#tellWaiting()
    const content = this.#files.get(path)
    if (fault.kind === 'silence') return
    if (fault.kind === 'redirect') end(response, 302, { location: fault.location })
    else if (fault.kind === 'status') end(response, fault.status)
    else if (content === undefined) end(response, 404)
    else if (fault.kind === 'endless') this.#sendEndlessly(response)
    else this.#answerWith(content, fault, response, range, this.requests.at(-1)?.ifRange ?? null)
  }

  #answerWith(content: Buffer, fault: Fault, response: ServerResponse, range: string | null, ifRange: string | null) {
    const etag = `"${createHash('sha256').update(content).digest('hex').slice(0, 16)}"`
    const validators: Record<string, string> = fault.kind === 'no-validators' ? {} : { etag }
    const asked = range === null ? null : Number(/^bytes=(\d+)-$/.exec(range)?.[1])
    if (asked === null || fault.kind === 'ignore-range' || (ifRange !== null && ifRange !== etag)) {
      this.#send(response, fault, 200, content, validators)
      return
    }
    if (asked >= content.length) {
      end(response, 416, { 'content-range': `bytes */${content.length}` })
      return
    }
    const start = fault.kind === 'wrong-offset' ? asked + fault.by : asked
    const contentRange = `bytes ${start}-${content.length - 1}/${content.length}`
    this.#send(response, fault, 206, content.subarray(start), { ...validators, 'content-range': contentRange })
  }

  #send(response: ServerResponse, fault: Fault, status: number, body: Buffer, headers: Record<string, string>): void {
    const length = { 'content-length': String(body.length) }
    switch (fault.kind) {
      case 'cut':
        response.writeHead(status, { ...headers, ...length })
        response.write(body.subarray(0, fault.afterBytes), () => response.socket?.destroySoon())
        return
      case 'stall':
        response.writeHead(status, { ...headers, ...length })
        response.write(body.subarray(0, fault.afterBytes))
        return
      case 'announce-less':
        // Below node:http, which would not let it pass.
        if (response.socket !== null) sendRaw(response.socket, body, body.length - fault.bytes)
        return
      case 'chunked':
        response.writeHead(status, headers)
        response.end(body)
        return
      case 'wrong-bytes':
        response.writeHead(status, { ...headers, ...length })
        response.end(Buffer.alloc(body.length, 0x58))
        return
      default:
        response.writeHead(status, { ...headers, ...length })
        response.end(body)
    }
  }
}

function end(response: ServerResponse, status: number, headers: Record<string, string> = {}): void {
  response.writeHead(status, headers)
  response.end()
}

function sendRaw(socket: Socket, body: Buffer, announced: number): void {
  const head = `HTTP/1.1 200 OK\r\nContent-Length: ${announced}\r\nConnection: close\r\n\r\n`
  socket.end(Buffer.concat([Buffer.from(head), body]))
}
