import { readFileSync } from 'node:fs'
import { type ClientRequest, type IncomingMessage, request } from 'node:http'
import type { Event } from '@berth/contract/events.ts'

/** One block of the stream with an id, an event or data; `data` is parsed. */
export interface Received {
  id: number | null
  event: string
  data: Event
}

/** What an event stream sent, as a client of server-sent events sees it. */
export interface EventStream {
  status: number
  /** Every event, in the order they came. */
  events: Received[]
  /** Comments, without the colon. */
  comments: string[]
  /** What a client would send as Last-Event-ID now; null before the first id. */
  lastId(): number | null
  /** The whole text so far. */
  text(): string
  /** Resolves when the condition holds, at once or after what comes next; throws after 10 s and when the stream ends. */
  until(condition: (stream: EventStream) => boolean): Promise<void>
  /** Resolves when the stream has ended, whoever ended it. */
  ended: Promise<void>
  /** Read nothing any more. */
  pause(): void
  /** Read on. */
  resume(): void
  /** Whether the server still holds its end of the connection; a client that reads nothing cannot see that otherwise. */
  held(): boolean
  /** Drop the connection without a word. */
  drop(): void
}

/** Open `GET /v1/events` with a query (`?after=0`) and headers; resolves once the answer's head is there. */
export function openEvents(port: number, query = '', headers: Record<string, string> = {}): Promise<EventStream> {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, path: `/v1/events${query}`, headers, agent: false } as const
    const outgoing = request(options, (incoming) => resolve(reading(port, outgoing, incoming)))
    outgoing.on('error', reject)
    outgoing.end()
  })
}

function reading(port: number, outgoing: ClientRequest, incoming: IncomingMessage): EventStream {
  const localPort = incoming.socket.localPort ?? 0
  const waiting = new Set<() => void>()
  let whole = ''
  let rest = ''
  let lastId: number | null = null
  let over = false
  const wake = () => {
    for (const look of [...waiting]) look()
  }
  const { promise: ended, resolve: end } = Promise.withResolvers<void>()
  const stream: EventStream = {
    status: incoming.statusCode ?? 0,
    events: [],
    comments: [],
    lastId: () => lastId,
    text: () => whole,
    until(condition) {
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      const timer = setTimeout(() => reject(new Error(`it did not come within 40 s: …${whole.slice(-500)}`)), 40_000)
      const look = () => {
        if (condition(stream)) resolve()
        else if (over) reject(new Error(`the stream ended before it came: …${whole.slice(-500)}`))
      }
      waiting.add(look)
      look()
      return promise.finally(() => {
        clearTimeout(timer)
        waiting.delete(look)
      })
    },
    ended,
    pause() {
      incoming.pause()
      incoming.socket.pause()
    },
    resume() {
      incoming.socket.resume()
      incoming.resume()
    },
    held: () => isEstablished(port, localPort),
    drop: () => outgoing.destroy(),
  }
  incoming.setEncoding('utf8')
  incoming.on('data', (chunk: string) => {
    whole += chunk
    const blocks = `${rest}${chunk}`.split('\n\n')
    rest = blocks.pop() ?? ''
    for (const block of blocks) lastId = takeBlock(stream, block) ?? lastId
    wake()
  })
  incoming.on('error', () => undefined) // dropped
  outgoing.on('error', () => undefined)
  incoming.on('close', () => {
    over = true
    end()
    wake()
  })
  return stream
}

/** Take in one block; gives its id, which counts also without an event (HTML, 9.2.6). */
function takeBlock(stream: EventStream, block: string): number | null {
  let id: number | null = null
  let event = 'message'
  let data = ''
  for (const line of block.split('\n')) {
    if (line.startsWith(':')) stream.comments.push(line.slice(1).trim())
    if (line.startsWith('id: ')) id = Number(line.slice(4))
    if (line.startsWith('event: ')) event = line.slice(7)
    if (line.startsWith('data: ')) data += line.slice(6)
  }
  if (data !== '') stream.events.push({ id, event, data: JSON.parse(data) })
  return id
}

/** Whether the socket of a server's port towards a client's port is open (proc(5), /proc/net/tcp: state 01). */
function isEstablished(port: number, clientPort: number): boolean {
  const hex = (number: number) => number.toString(16).toUpperCase().padStart(4, '0')
  return readFileSync('/proc/net/tcp', 'utf8')
    .split('\n')
    .some((line) => {
      const [, local = '', remote = '', state] = line.trim().split(/\s+/)
      return local.endsWith(`:${hex(port)}`) && remote.endsWith(`:${hex(clientPort)}`) && state === '01'
    })
}
