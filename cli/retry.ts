import { randomUUID } from 'node:crypto'
import type { CliIo } from './io.ts'
import { formatSeconds } from './output/table.ts'

type Send = typeof globalThis.fetch

/** Times a POST is sent at most, the first included. */
const mostAttempts = 5
const firstWaitMs = 1000

/** Longest wait between two attempts, milliseconds, also when the server's Retry-After asks for more. */
const longestWaitMs = 10_000

/**
 * A fetch whose POSTs take effect once: each carries an Idempotency-Key, and is sent again with the same key when the
 * connection broke before the answer or the server answered 503. Each wait is told on standard error. When the first
 * connection is refused nothing was sent, so there is nothing to make sure of and it fails at once, as a GET does.
 */
export function sendPostsOnce(io: CliIo, send: Send): Send {
  return async (input, init) => {
    const method = init?.method ?? (input instanceof Request ? input.method : 'GET')
    if (method !== 'POST') return send(input, init)
    const request = new Request(input, init)
    const headers = new Headers(request.headers)
    if (!headers.has('idempotency-key')) headers.set('idempotency-key', randomUUID())
    const body = await request.arrayBuffer()
    for (let attempt = 1; ; attempt++) {
      const again = attempt < mostAttempts
      const outcome = await settled(
        send(new Request(request.url, { method: 'POST', headers, body, signal: request.signal })),
      )
      if ('response' in outcome) {
        if (outcome.response.status !== 503 || !again) return outcome.response
        await outcome.response.body?.cancel()
      } else if (
        !again ||
        request.signal.aborted ||
        io.signal.aborted ||
        (attempt === 1 && wasRefused(outcome.error))
      ) {
        throw outcome.error
      }
      const asked = 'response' in outcome ? retryAfterMs(outcome.response) : 0
      const waitMs = Math.min(longestWaitMs, Math.max(asked, firstWaitMs * 2 ** (attempt - 1)))
      const why = 'response' in outcome ? 'the server is not available now' : faultOf(outcome.error)
      const left = mostAttempts - attempt
      io.stderr.write(`${why}; the same request again in ${formatSeconds(waitMs)} (${left} left)\n`)
      await io.pause(waitMs)
    }
  }
}

async function settled(answer: Promise<Response>): Promise<{ response: Response } | { error: unknown }> {
  try {
    return { response: await answer }
  } catch (error) {
    return { error }
  }
}

/** Seconds only: the other form of the header is a date of a clock that need not be this one. */
function retryAfterMs(response: Response): number {
  const text = response.headers.get('retry-after') ?? ''
  return /^\d{1,6}$/.test(text) ? Number(text) * 1000 : 0
}

function faultOf(error: unknown): string {
  return error instanceof Error && error.name === 'TimeoutError' ? 'no answer came in time' : 'the connection broke'
}

function wasRefused(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : null
  return Reflect.get(Object(cause), 'code') === 'ECONNREFUSED'
}
