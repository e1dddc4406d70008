import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Context } from '../../context.ts'
import { answerOnce, type PostAnswer } from '../../domain/answer-once.ts'
import type { WriteOptions } from '../../store/store.ts'
import type { Transaction } from '../../store/transaction.ts'

/** Error codes that a POST with a body can be answered with besides its own. */
export const postProblems = [
  'invalid_json',
  'invalid_header',
  'body_too_large',
  'unsupported_media_type',
  'validation_failed',
  'idempotency_key_reused',
] as const

/** Answer a POST with what `work` gives, or with what it gave when the request came with the same key before. */
export async function answerPost(
  ctx: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  work: (tx: Transaction) => Promise<PostAnswer>,
  options: WriteOptions = {},
) {
  const header = request.headers['idempotency-key']
  const key = typeof header === 'string' ? header : null // the schema of the headers has checked it
  const answer = await answerOnce(ctx, { key, path: request.url, body: request.body }, work, options)
  if (answer.location !== '') reply.header('location', answer.location)
  if (answer.replayed) reply.header('idempotency-replayed', 'true')
  return reply.code(answer.status).send(answer.body)
}
