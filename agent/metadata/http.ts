import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Logger } from 'pino'
import type { Admission } from './admission.ts'
import { type AnswerSources, answerGuest, type MetadataAnswer } from './answer.ts'
import type { MetadataLimits } from './limits.ts'

export interface MetadataHttpOptions {
  vpcId: string
  sources: AnswerSources
  admission: Admission
  limits: MetadataLimits
  log: Logger
}

/** What is noted of a connection when it is accepted. */
interface Caller {
  /** Whose share of the service it takes. */
  guest: string
  address: string
  /** The instance that had the address then; null when none had. */
  instanceId: string | null
  /** A request of it is being read or answered. */
  busy: boolean
}

/** Whose share of the service an address of a VPC takes. */
export function shareName(vpcId: string, address: string): string {
  return `${vpcId} ${address}`
}

/**
 * The HTTP server of one VPC. Who asks is told by the address of the connection, which the rules of the namespace bind to
 * the tap of one instance. It is looked up when the connection is accepted and again for each request: a connection that
 * outlives the holder of its address is answered nothing.
 */
export function createMetadataServer(options: MetadataHttpOptions): Server {
  const { vpcId, admission, limits } = options
  const callers = new WeakMap<Socket, Caller>()
  const server = createServer(
    {
      maxHeaderSize: limits.headBytes,
      headersTimeout: limits.headMs,
      requestTimeout: limits.requestMs,
      connectionsCheckingInterval: limits.checkMs,
      keepAliveTimeout: limits.idleMs,
      keepAliveTimeoutBuffer: 0,
    },
    (request, response) => {
      const caller = callers.get(request.socket)
      if (caller === undefined) return
      // counted even when its connection has ended: reading hundreds that came at once has cost the others their time
      const inTime = admission.request(caller.guest)
      if (request.socket.destroyed) return
      void handle(request, response, { caller, inTime }, options).catch(() => request.socket.destroy())
    },
  )
  // Node's own listener makes a parser: connections that are refused are not to cost that
  const serve = server.listeners('connection')
  server.removeAllListeners('connection')
  server.on('connection', (socket: Socket) => {
    const address = socket.remoteAddress
    if (address === undefined) return socket.destroy() // it has ended already
    const guest = shareName(vpcId, address)
    if (!admission.connect(guest, socket)) return socket.resetAndDestroy()
    const instanceId = options.sources.desk.find(vpcId, address)?.instance.id ?? null
    callers.set(socket, { guest, address, instanceId, busy: false })
    const life = setTimeout(() => socket.destroy(), limits.connectionMs)
    socket.once('close', () => {
      clearTimeout(life)
      admission.disconnect(guest, socket)
    })
    for (const listener of serve) listener.call(server, socket)
    return undefined
  })
  return server
}

async function handle(
  request: IncomingMessage,
  response: ServerResponse,
  { caller, inTime }: { caller: Caller; inTime: boolean },
  options: MetadataHttpOptions,
): Promise<void> {
  // each answer may be large, and reading many requests at once takes long: who does not wait loses all connections
  if (caller.busy) return void options.admission.destroy(caller.guest)
  caller.busy = true
  response.once('close', () => {
    caller.busy = false
  })
  if (!inTime) return send(response, refusal(429, { 'retry-after': '5' }), caller, options, { close: true })
  const body = await readBody(request, options.limits.bodyBytes)
  if (body === null) return send(response, refusal(413), caller, options, { close: true })
  // looked up last, so that what is answered is of the one who has the address now
  const guest = options.sources.desk.find(options.vpcId, caller.address)
  if (guest === null || guest.instance.id !== caller.instanceId) {
    return send(response, refusal(404), caller, options, { close: true })
  }
  const { method = '', url = '', headers } = request
  send(response, answerGuest({ method, url, headers, body }, guest, options.sources), caller, options)
}

function refusal(status: number, headers: Record<string, string> = {}): MetadataAnswer {
  return { part: 'other', status, headers, body: '' }
}

/** The body of a request; null when it is longer than it may be. What is left of it goes with the connection. */
async function readBody(request: IncomingMessage, most: number): Promise<Buffer | null> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of request) {
    length += chunk.length
    if (length > most) return null
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

function send(
  response: ServerResponse,
  answer: MetadataAnswer,
  caller: Caller,
  { sources, log }: MetadataHttpOptions,
  { close = false } = {},
): void {
  sources.desk.count(answer.part, answer.status)
  // the path stays out of it: a seed's has its secret
  log.debug({ instance_id: caller.instanceId, part: answer.part, status: answer.status }, 'metadata request')
  response.writeHead(answer.status, {
    ...answer.headers,
    ...(answer.status === 204 ? {} : { 'content-length': Buffer.byteLength(answer.body) }),
    'cache-control': 'no-store',
    ...(close ? { connection: 'close' } : {}),
  })
  response.end(answer.body)
}
