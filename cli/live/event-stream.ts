import type { Event } from '@berth/contract/events.ts'
import { CliError, exitCodes } from '../exit-codes.ts'
import { formatSeconds } from '../output/table.ts'
import { foreignServer, openStream, type Session } from '../session.ts'

/**
 * What a reader of the event stream is told: it is connected; events are missing here, so what is known has to be read
 * anew; or one event.
 */
export type StreamItem = { kind: 'connected' } | { kind: 'gap'; sequence: number } | { kind: 'event'; event: Event }

/** The server writes at least every 15 s; a stream that is silent for longer than this is broken, milliseconds. */
const silenceMs = 45_000

/** How long a server may be away before a reader gives up, milliseconds. */
const outageMs = 300_000
const firstRetryMs = 1000
const longestRetryMs = 15_000

/** Longest line and longest event that are kept, characters. */
const longestMessage = 1024 ** 2

/**
 * Every change behind a sequence number, or from now on when it is undefined, until the user asks to stop: then it ends
 * without an error. A broken connection is made anew with Last-Event-ID and the wait is told on standard error. Throws
 * CliError when the first connection fails, when the server refuses, or when it stays away for five minutes.
 */
export async function* followEvents(
  session: Session,
  about: { after?: number | undefined; resourceId?: string | undefined; signal?: AbortSignal },
): AsyncGenerator<StreamItem> {
  const { io } = session
  const stop = AbortSignal.any([io.signal, ...(about.signal === undefined ? [] : [about.signal])])
  let position = about.after
  let awaySince: number | null = null
  let retryMs = firstRetryMs
  for (let connected = false; !stop.aborted; ) {
    try {
      for await (const message of messages(session, position, about.resourceId, stop)) {
        // it broke off before the server said where it stands
        if (connected && awaySince !== null && position === undefined) yield { kind: 'gap', sequence: 0 }
        connected = true
        awaySince = null
        retryMs = firstRetryMs
        if (message.id !== null) position = message.id
        const item = toItem(session, message, position)
        if (item !== null) yield item
      }
    } catch (error) {
      if (stop.aborted) return
      const isAway = error instanceof CliError && error.exitCode === exitCodes.unreachable
      if (!connected || !isAway || (awaySince !== null && io.now() - awaySince > outageMs)) throw error
    }
    if (stop.aborted) return
    awaySince ??= io.now()
    io.stderr.write(`the event stream broke; connecting again in ${formatSeconds(retryMs)}\n`)
    await io.pause(retryMs)
    retryMs = Math.min(longestRetryMs, retryMs * 2)
  }
}

/** One message of the stream; `type` is "" for the one that tells only that the connection stands. */
interface Message {
  id: number | null
  type: string
  data: string
}

function toItem(session: Session, { type, data }: Message, position: number | undefined): StreamItem | null {
  if (type === '') return { kind: 'connected' }
  if (type === 'reset') return { kind: 'gap', sequence: position ?? 0 }
  const event = parseEvent(data)
  if (event === null) throw foreignServer(session, 'sent an event of an unknown form')
  return { kind: 'event', event }
}

function parseEvent(data: string): Event | null {
  try {
    const event: Partial<Event> | null = JSON.parse(data)
    const texts = [event?.type, event?.resource_id, event?.at].every((text) => typeof text === 'string')
    const whole = texts && typeof event?.sequence === 'number' && typeof event.detail === 'object'
    return whole ? (event as Event) : null // each field was looked at
  } catch {
    return null
  }
}

/** The messages of one connection, one that it stands first, until it ends or breaks. */
async function* messages(
  session: Session,
  position: number | undefined,
  resourceId: string | undefined,
  stop: AbortSignal,
): AsyncGenerator<Message> {
  const silence = new AbortController()
  const timer = setTimeout(() => silence.abort(), silenceMs)
  const signal = AbortSignal.any([stop, silence.signal])
  try {
    const query = resourceId === undefined ? '' : `?resource_id=${encodeURIComponent(resourceId)}`
    const headers = {
      accept: 'text/event-stream',
      ...(position === undefined ? {} : { 'last-event-id': String(position) }),
    }
    const body = await openStream(session, `/v1/events${query}`, headers, signal)
    yield { id: null, type: '', data: '' }
    const parser = new EventStreamParser()
    const decoder = new TextDecoder()
    for await (const chunk of body) {
      timer.refresh()
      yield* parser.feed(decoder.decode(chunk, { stream: true }))
    }
  } catch (error) {
    if (error instanceof CliError) throw error
    throw new CliError(exitCodes.unreachable, `the event stream of ${session.url} broke`, { cause: error })
  } finally {
    clearTimeout(timer)
    silence.abort()
  }
}

/** Takes an event stream apart (https://html.spec.whatwg.org/multipage/server-sent-events.html, 9.2.6). */
export class EventStreamParser {
  #rest = ''
  #id: number | null = null
  #type = ''
  #data: string[] = []
  #size = 0

  /** The messages that end in this piece of text; one that only sets the id has type "". Throws when one is too long. */
  feed(text: string): Message[] {
    const lines = `${this.#rest}${text}`.split('\n')
    this.#rest = lines.pop() ?? ''
    const messages = lines.flatMap((line) => this.#line(line.replace(/\r$/, '')))
    if (this.#rest.length + this.#size > longestMessage) throw new RangeError('an event is too long')
    return messages
  }

  #line(line: string): Message[] {
    if (line === '') return this.#end()
    this.#size += line.length
    const colon = line.indexOf(':')
    if (colon === 0) return [] // a comment
    const field = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (field === 'id' && /^\d{1,15}$/.test(value)) this.#id = Number(value)
    else if (field === 'event') this.#type = value
    else if (field === 'data') this.#data.push(value)
    return []
  }

  #end(): Message[] {
    const message = { id: this.#id, type: this.#data.length === 0 ? '' : this.#type, data: this.#data.join('\n') }
    this.#id = null
    this.#type = ''
    this.#data = []
    this.#size = 0
    return message.id === null && message.type === '' ? [] : [message]
  }
}
