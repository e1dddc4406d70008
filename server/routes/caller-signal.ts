import type { FastifyReply } from 'fastify'

/** A signal that is aborted when the answer is out or the caller has gone, so that nothing waits for nobody. */
export function callerSignal(reply: FastifyReply): AbortSignal {
  const controller = new AbortController()
  reply.raw.once('close', () => controller.abort())
  return controller.signal
}
