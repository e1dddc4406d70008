import { readFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Logger } from 'pino'
import { ApiError } from '../api-error.ts'
import type { Limits } from '../limits.ts'
import { seldom } from './seldom.ts'

/** How often it is logged that connections were refused, milliseconds. */
const refusalLogMs = 60_000

/**
 * Hold a server to its limits where Node and Fastify have no option for it: connections, requests on one connection,
 * length of the URL, number of headers, and clients that do not take their answer.
 */
export function enforceLimits(app: FastifyInstance, limits: Limits, log: Logger): void {
  limitConnections(app, limits, log)
  const closeGreedy = pipelineGuard(limits.pipelinedRequests)
  const admitBody = bodyGuard(limits)
  const untaken = new UntakenAnswers(limits.untakenBytes)
  app.addHook('onRequest', (request, reply, done) => {
    if (closeGreedy(request, reply.raw)) {
      reply.hijack()
      return
    }
    admitBody(request)
    if (request.url.length > limits.urlBytes) {
      throw new ApiError('uri_too_long', `The URI may have at most ${limits.urlBytes} bytes.`)
    }
    if (request.raw.rawHeaders.length / 2 > limits.headers) {
      throw new ApiError('header_too_large', `A request may have at most ${limits.headers} headers.`)
    }
    done()
  })
  app.addHook('onSend', (request, reply, payload, done) => {
    done(null, payload) // sends it
    if (typeof payload !== 'string' && !Buffer.isBuffer(payload)) return // a stream has to look after itself
    if (isTaken(reply.raw)) return // as nearly every answer is
    untaken.add(request.socket, reply.raw, payload.length)
    closeWhenStalled(reply.raw, limits.stalledAnswerMs)
  })
}

/** New connections over the cap are closed at once; those there are go on. */
function limitConnections(app: FastifyInstance, limits: Limits, log: Logger): void {
  const { server } = app
  // files, the database and the agent in the same process need descriptors too
  server.maxConnections = Math.min(limits.connections, Math.floor(maxOpenFiles() / 2))
  const logRefusal = seldom(refusalLogMs, (skipped: number) => {
    log.warn({ connections: server.maxConnections, skipped }, 'too many connections; new ones are refused')
  })
  server.on('drop', () => logRefusal())
}

/** Soft limit of this process (proc_pid_limits(5)); infinite where it cannot be read. */
function maxOpenFiles(): number {
  try {
    const limit = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]
    return limit === undefined ? Number.POSITIVE_INFINITY : Number(limit)
  } catch {
    return Number.POSITIVE_INFINITY
  }
}

/**
 * Closes the connection of a client that sends requests without waiting for answers. Node hands each of them over as it
 * comes, so one connection could otherwise hold any number of waiting requests.
 */
function pipelineGuard(most: number): (request: FastifyRequest, response: ServerResponse) => boolean {
  const unanswered = new WeakMap<Socket, number>()
  return ({ socket }, response) => {
    const now = (unanswered.get(socket) ?? 0) + 1
    unanswered.set(socket, now)
    response.once('close', () => unanswered.set(socket, (unanswered.get(socket) ?? 1) - 1))
    if (now <= most) return false
    socket.destroy()
    return true
  }
}

/**
 * Whether the kernel has all of an answer. `writableFinished` says so only at a later tick, just before `finish`. An answer
 * that waits behind another one on the same connection has no socket yet.
 */
function isTaken(response: ServerResponse): boolean {
  return response.writableEnded && response.socket !== null && response.writableLength === 0
}

/**
 * From here on the client must take something of the answer within the time, again and again, until it has it all. The
 * socket's own timer counts bytes that the kernel took as activity (https://nodejs.org/api/net.html#socketsettimeouttimeout-callback).
 */
function closeWhenStalled(response: ServerResponse, timeoutMs: number): void {
  const begin = (socket: Socket) => {
    socket.setTimeout(timeoutMs)
    // before Node's own listener, which sets the keep-alive time: a request that waits behind this one has no such limit
    response.prependOnceListener('finish', () => socket.setTimeout(0))
  }
  // an answer behind another one on the same connection gets the socket when it is its turn
  if (response.socket === null) response.once('socket', begin)
  else begin(response.socket)
}

/**
 * Refuses large bodies while there are many: each is held in memory until it has arrived, which a slow client can make
 * long. Small ones always come through, and what hosts send.
 */
function bodyGuard(limits: Limits): (request: FastifyRequest) => void {
  let large = 0
  return (request) => {
    const { headers, routeOptions, raw } = request
    const announced = headers['transfer-encoding'] === undefined ? Number(headers['content-length'] ?? 0) : Infinity
    if (announced <= limits.largeBodyBytes || routeOptions.config.fromHost === true) return
    if (large >= limits.largeBodies) {
      throw new ApiError('unavailable', 'Too many large bodies are being received; try again.')
    }
    large++
    raw.once('close', () => large--) // it has arrived, or the connection has ended
  }
}

/** Knows what was answered and not taken yet, oldest first. When that is too much, the oldest connections are closed. */
class UntakenAnswers {
  readonly #mostBytes: number
  readonly #bytes = new Map<Socket, number>()
  readonly #watched = new WeakSet<Socket>()
  #total = 0

  constructor(mostBytes: number) {
    this.#mostBytes = mostBytes
  }

  add(socket: Socket, response: ServerResponse, bytes: number): void {
    if (socket.destroyed) return
    if (!this.#watched.has(socket)) {
      this.#watched.add(socket)
      socket.once('close', () => this.#change(socket, -(this.#bytes.get(socket) ?? 0)))
    }
    this.#change(socket, bytes)
    response.once('finish', () => this.#change(socket, -bytes))
    for (const oldest of this.#bytes.keys()) {
      if (this.#total <= this.#mostBytes) break
      this.#change(oldest, -(this.#bytes.get(oldest) ?? 0))
      oldest.destroy()
    }
  }

  #change(socket: Socket, by: number): void {
    const now = Math.max(0, (this.#bytes.get(socket) ?? 0) + by)
    this.#total += now - (this.#bytes.get(socket) ?? 0)
    if (now === 0) this.#bytes.delete(socket)
    else this.#bytes.set(socket, now)
  }
}
