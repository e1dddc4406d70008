import { request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import { type Duplex, duplexPair } from 'node:stream'
import type { Context } from '@berth/server/context.ts'
import { ServerMetrics } from '@berth/server/metrics/server-metrics.ts'
import { buildApi } from '@berth/server/routes/all.ts'
import { checkResponse } from '../openapi/responses.ts'

/** What a client sends. */
export interface Sent {
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  path: string
  headers?: Record<string, string>
  body?: object
}

/** What it gets, whole. */
export interface Answer {
  status: number
  headers: IncomingHttpHeaders
  text: string
}

/** Name and port that clients know the server by. */
const port = 80
const host = `localhost:${port}`

/** The server's half of a connection that is no socket, with what the server asks of one. */
interface ServerEnd extends Duplex {
  localPort: number
  setTimeout(): void
}

/**
 * The HTTP layer of a server, with Node's parser, over connections in memory: nothing on the way waits for the machine.
 * It serves one server at a time.
 */
export class Api {
  readonly #app: Awaited<ReturnType<typeof buildApi>>
  readonly #bound: Context

  private constructor(app: Awaited<ReturnType<typeof buildApi>>, bound: Context) {
    this.#app = app
    this.#bound = bound
  }

  static async build(ctx: Context): Promise<Api> {
    const bound = { ...ctx, metrics: new ServerMetrics() } // routes register figures of their own there
    return new Api(await buildApi(bound, []), bound)
  }

  /** Serve another server from now on; the one before has ended. */
  bind(ctx: Context): void {
    Object.assign(this.#bound, ctx, { metrics: this.#bound.metrics })
  }

  /** Send a request over a connection of its own, which ends with the signal; the answer is one of openapi.json. */
  async send(sent: Sent, signal: AbortSignal): Promise<Answer> {
    const client = this.#connect()
    const payload = sent.body === undefined ? '' : JSON.stringify(sent.body)
    const length = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) }
    const headers = { host, connection: 'close', ...(payload === '' ? {} : length), ...sent.headers }
    const end = () => client.destroy()
    signal.addEventListener('abort', end)
    try {
      const answer = await new Promise<Answer>((resolve, reject) => {
        const { method, path } = sent
        const outgoing = httpRequest({ method, path, headers, createConnection: () => client }, (incoming) => {
          let text = ''
          incoming.setEncoding('utf8')
          incoming.on('data', (part) => {
            text += part
          })
          incoming.on('end', () => resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text }))
          incoming.on('error', reject)
        })
        outgoing.on('error', reject)
        outgoing.end(payload)
      })
      checkResponse(sent.method, sent.path, answer)
      return answer
    } finally {
      signal.removeEventListener('abort', end)
    }
  }

  async close(): Promise<void> {
    await this.#app.close()
  }

  /** A connection (https://nodejs.org/api/http.html#event-connection). Gives the client's half. */
  #connect(): Duplex {
    const [client, server] = duplexPair()
    client.once('close', () => server.destroy())
    const end: ServerEnd = Object.assign(server, { localPort: port, setTimeout: () => {} })
    this.#app.server.emit('connection', end)
    return client
  }
}

/** HTTP layers of many schedules: to build one costs more than a schedule, so one whose server is gone serves the next. */
export class Apis {
  readonly #idle: Api[] = []

  async take(ctx: Context): Promise<Api> {
    const api = this.#idle.pop()
    if (api === undefined) return Api.build(ctx)
    api.bind(ctx)
    return api
  }

  /** Take back one that nothing is under way in any more. */
  giveBack(api: Api): void {
    this.#idle.push(api)
  }

  async close(): Promise<void> {
    for (const api of this.#idle.splice(0)) await api.close()
  }
}
