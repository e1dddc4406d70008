import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

/** What one run of a load found. Times are milliseconds. */
export interface LoadResult {
  requests: number
  /** Answers with another status than expected. */
  failures: number
  perSecond: number
  p50: number
  p99: number
  longest: number
  /** Part of the time that this process spent working; near 1 it is the load that is measured. */
  busy: number
}

export interface Load {
  url: string
  connections: number
  durationMs: number
  /** The status that counts as success. */
  status: number
  /** Bytes of the next request, made with `getRequest` or `jsonRequest`. */
  next: () => string
  /** Pause of each connection between two requests; none unless given. */
  pauseMs?: number
}

/** The bytes of a GET. */
export function getRequest(url: string, path: string): string {
  return `GET ${path} HTTP/1.1\r\nhost: ${new URL(url).host}\r\n\r\n`
}

/** The bytes of a request with a JSON body. */
export function jsonRequest(method: 'POST' | 'PATCH', url: string, path: string, body: string): string {
  const length = Buffer.byteLength(body)
  return `${method} ${path} HTTP/1.1\r\nhost: ${new URL(url).host}\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n${body}`
}

/**
 * Keep connections busy, one request at a time on each, until the time is over. It looks at no more of an answer than
 * its status and its length, so that one process can load a server that has a core to itself.
 */
export async function runLoad(load: Load): Promise<LoadResult> {
  const { hostname, port } = new URL(load.url)
  const sockets = await Promise.all(Array.from({ length: load.connections }, () => open(hostname, Number(port))))
  const times: number[] = []
  let failures = 0
  const cpuBefore = process.cpuUsage()
  const startedAt = performance.now()
  const endAt = startedAt + load.durationMs
  await Promise.all(
    sockets.map(async (socket) => {
      const exchange = new Exchange(socket)
      await new Promise<void>((resolve, reject) => {
        const send = () => {
          const sentAt = performance.now()
          if (sentAt >= endAt) {
            resolve()
            return
          }
          exchange.send(load.next(), (status) => {
            times.push(performance.now() - sentAt)
            if (status !== load.status) failures++
            if (load.pauseMs === undefined) send()
            else setTimeout(send, load.pauseMs)
          })
        }
        socket.on('error', reject).on('close', () => reject(new Error('the server closed a connection')))
        send()
      })
    }),
  )
  const tookMs = performance.now() - startedAt
  const cpu = process.cpuUsage(cpuBefore)
  for (const socket of sockets) socket.removeAllListeners('close').destroy()
  return { ...summary(times, tookMs), failures, busy: (cpu.user + cpu.system) / 1000 / tookMs }
}

/** Rate and percentiles of the times of requests, milliseconds. */
export function summary(times: number[], tookMs: number): Omit<LoadResult, 'failures' | 'busy'> {
  const sorted = Float64Array.from(times).sort()
  const at = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN
  return {
    requests: sorted.length,
    perSecond: (sorted.length / tookMs) * 1000,
    p50: at(0.5),
    p99: at(0.99),
    longest: at(1),
  }
}

/** Send these requests, in their order, over so many connections; gives the status of each answer. */
export async function exchangeAll(url: string, connections: number, requests: readonly string[]): Promise<number[]> {
  const { hostname, port } = new URL(url)
  const sockets = await Promise.all(Array.from({ length: connections }, () => open(hostname, Number(port))))
  const statuses: number[] = []
  const left = requests.values()
  const work = sockets.map(async (socket) => {
    const exchange = new Exchange(socket)
    const broken = once(socket, 'close').then(() => Promise.reject(new Error('the server closed a connection')))
    broken.catch(() => undefined)
    for (const request of left) {
      const { promise: answered, resolve } = Promise.withResolvers<number>()
      exchange.send(request, resolve)
      statuses.push(await Promise.race([answered, broken]))
    }
  })
  await Promise.all(work).finally(() => {
    for (const socket of sockets) socket.destroy()
  })
  return statuses
}

/** Send one request and give the answer's status, headers and body. */
export async function exchangeOnce(url: string, request: string) {
  const { hostname, port } = new URL(url)
  const socket = await open(hostname, Number(port))
  try {
    return await new Promise<{ status: number; head: string; body: Buffer }>((resolve, reject) => {
      socket.on('error', reject)
      new Exchange(socket).send(request, (status, head, body) => resolve({ status, head, body }))
    })
  } finally {
    socket.destroy()
  }
}

function open(host: string, port: number): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>()
  const socket = connect({ host, port, noDelay: true }, () => resolve(socket))
  socket.on('error', reject)
  return promise
}

type OnAnswer = (status: number, head: string, body: Buffer) => void

/** One connection with at most one request under way. Knows only answers with a content-length. */
class Exchange {
  readonly #socket: Socket
  #received: Buffer = Buffer.alloc(0)
  #onAnswer: OnAnswer = () => {}

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
  }

  send(request: string, onAnswer: OnAnswer): void {
    this.#onAnswer = onAnswer
    this.#socket.write(request, 'latin1')
  }

  #receive(chunk: Buffer): void {
    const received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk])
    const headEnd = received.indexOf('\r\n\r\n')
    if (headEnd === -1) {
      this.#received = received
      return
    }
    const head = received.toString('latin1', 0, headEnd)
    const length = /\r\ncontent-length: (\d+)/i.exec(head)?.[1]
    if (length === undefined) throw new Error(`an answer without a length: ${head}`)
    const end = headEnd + 4 + Number(length)
    if (received.length < end) {
      this.#received = received
      return
    }
    this.#received = received.subarray(end)
    this.#onAnswer(Number(head.slice(9, 12)), head, received.subarray(headEnd + 4, end))
  }
}
