import type { FastifyReply } from 'fastify'

const gone = new Error('the answer is out, or the caller has gone') // one for all: making one takes a stack trace

/** A signal that is aborted when the answer is out or the caller has gone, so that nothing waits for nobody. */
export function callerSignal(reply: FastifyReply): AbortSignal {
  const controller = new AbortController()
  reply.raw.once('close', () => controller.abort(gone))
  return controller.signal
}
