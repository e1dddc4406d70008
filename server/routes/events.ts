import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { EventsHeaders, EventsQuery } from '@berth/contract/events.ts'
import type { FastifyReply } from 'fastify'
import Type from 'typebox'
import type { Context } from '../context.ts'
import type { Api } from '../http/api.ts'
import { callerSignal } from '../http/caller-signal.ts'
import { problems } from '../http/problems.ts'
import { holdRequest } from '../http/tracking.ts'

/** The stream is text; what stands behind `data:` in it is an Event. */
const Stream = Type.String({
  contentMediaType: 'application/json',
  contentSchema: { $ref: '#/components/schemas/Event' },
})

const eventStream = 'text/event-stream; charset=utf-8'

/** GET /v1/events */
export function eventRoutes(api: Api, ctx: Context): void {
  api.get(
    '/v1/events',
    {
      schema: {
        operationId: 'streamEvents',
        summary: 'Every change, as server-sent events',
        description:
          'Each event has `id` (its sequence number), `event` (`instance.updated`) and `data`, a JSON document of the ' +
          'schema Event. Begin where you left off with the header Last-Event-ID or the query `after`; without either ' +
          'the stream begins with the next change. An id may come without an event: it says how far the stream is. An event `reset` comes first when the events behind that number are ' +
          'no longer kept: list again, then go on.',
        tags: ['events'],
        querystring: EventsQuery,
        headers: EventsHeaders,
        produces: ['text/event-stream'],
        response: {
          200: { description: 'The stream', content: { 'text/event-stream': { schema: Stream } } },
          ...problems('invalid_query', 'invalid_header'),
        },
      },
    },
    async (request, reply) => {
      if (request.method === 'HEAD') return reply.type(eventStream).send('') // the stream itself would never end
      const lastEventId = request.headers['last-event-id']
      const after = lastEventId === undefined ? request.query.after : Number(lastEventId)
      const signal = callerSignal(reply)
      holdRequest(ctx.metrics, reply, 'events')
      await streamEvents(ctx, reply, { after, resourceId: request.query.resource_id, signal })
      return reply
    },
  )
}

interface Subscription {
  after: number | undefined
  resourceId: string | undefined
  signal: AbortSignal
}

/** Write events until the caller goes. What is not read by the caller is not written: it waits in the database. */
async function streamEvents(ctx: Context, reply: FastifyReply, { after, resourceId, signal }: Subscription) {
  const { feed } = ctx
  const resumable = after === undefined || (await feed.canResume(after))
  let position = after === undefined || !resumable ? await feed.newest() : after
  reply.hijack()
  const response = reply.raw
  response.writeHead(200, {
    'content-type': eventStream,
    'cache-control': 'no-store',
    'x-accel-buffering': 'no', // a proxy must pass each event on at once
    'x-request-id': reply.request.id,
  })
  // an id without an event: who is cut off before the first event, or is sent none for long, can still go on from here
  const hello = resumable ? `: connected\nid: ${position}\n\n` : reset(position)
  const beat = setInterval(() => {
    if (response.writableLength === 0) response.write(`: keep-alive\nid: ${position}\n\n`)
  }, ctx.settings.eventKeepAliveMs)
  try {
    if (!(await write(ctx, response, `retry: 1000\n${hello}`, signal))) return
    while (!signal.aborted) {
      const page = await feed.read(position, resourceId)
      if (page === null) {
        await feed.changed(position, signal)
        continue
      }
      position = page.position
      if (page.texts.length === 0)
        await nextTurn() // what is in memory is read without waiting for anything
      else if (!(await write(ctx, response, page.texts.join(''), signal))) return
    }
  } catch (error) {
    ctx.log.warn({ err: error }, 'an event stream ended early') // the client resumes where it was
  } finally {
    clearInterval(beat)
    response.end()
  }
}

/** Tells a caller that events are missing in front of this number. */
function reset(position: number): string {
  return `id: ${position}\nevent: reset\ndata: {"sequence":${position}}\n\n`
}

/** Write and wait until the caller has taken it; a caller that takes nothing for too long is cut off, and it is false. */
async function write(ctx: Context, response: ServerResponse, text: string, signal: AbortSignal): Promise<boolean> {
  if (response.write(text)) return true
  const stalled = AbortSignal.timeout(ctx.settings.eventStallMs)
  try {
    await once(response, 'drain', { signal: AbortSignal.any([signal, stalled]) })
    return true
  } catch {
    response.destroy()
    return false
  }
}
