import { type BerthClient, createBerthClient } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import { CliError, exitCodes } from './exit-codes.ts'
import type { CliIo } from './io.ts'
import { isProblem, problemError } from './problem.ts'
import { sendPostsOnce } from './retry.ts'

const defaultServer = 'http://127.0.0.1:7480'

/** Longest time for one answer, milliseconds; longer waits are made of several requests. */
const answerWithinMs = 30_000

/** A command's way to its server. */
export interface Session {
  io: CliIo
  /** Base URL without a slash at the end. */
  url: string
  /** Bounded: an answer has to come in time. A POST takes effect once (see sendPostsOnce). */
  client: BerthClient
  /** Without those bounds, for streams. */
  send: typeof globalThis.fetch
}

/** The session of a command: `--server`, else BERTH_SERVER, else this machine's `berth dev`. */
export function openSession(io: CliIo, command: Command): Session {
  const option: unknown = command.optsWithGlobals().server
  const url = parseServerUrl(typeof option === 'string' ? option : io.env.BERTH_SERVER || defaultServer)
  const send = io.fetch ?? globalThis.fetch
  const bounded: typeof globalThis.fetch = (input, init) => {
    // a signal beside a request takes the place of the request's own
    const own = input instanceof Request ? [input.signal] : []
    const signal = AbortSignal.any([io.signal, ...own, AbortSignal.timeout(answerWithinMs)])
    return send(input, { ...init, signal })
  }
  return { io, url, client: createBerthClient(url, sendPostsOnce(io, bounded)), send }
}

/** The base URL of a server out of what a user wrote. Throws CliError (usage). */
export function parseServerUrl(text: string): string {
  const url = URL.parse(text)
  const plain = url !== null && url.search === '' && url.hash === '' && url.username === '' && url.password === ''
  if (!plain || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    // a password shall not stand in a log
    const shown = text.includes('@') ? 'one with a user' : `"${text}"`
    throw new CliError(exitCodes.usage, `the server must be an http or https URL like ${defaultServer}, not ${shown}`)
  }
  return url.href.replace(/\/+$/, '')
}

interface Answer<T> {
  data?: T
  error?: unknown
  response: Response
}

/**
 * The body of an answer that goes on, from a path below the base URL, until `signal` is aborted. Throws as
 * callForAnswer.
 */
export async function openStream(
  session: Session,
  path: string,
  headers: Record<string, string>,
  signal: AbortSignal,
): Promise<ReadableStream<Uint8Array>> {
  const answer = async (): Promise<Answer<ReadableStream<Uint8Array> | null>> => {
    const response = await session.send(`${session.url}${path}`, { headers, signal })
    return response.ok ? { data: response.body, response } : { error: await response.json(), response }
  }
  const body = await call(session, answer())
  if (body === null) throw foreignServer(session, 'answered with nothing')
  return body
}

/**
 * The answer to a request with its document. Throws CliError: with the code that belongs to a problem document,
 * unreachable when no Berth server answers, interrupted when the user gave up.
 */
export async function callForAnswer<T>(
  session: Session,
  pending: Promise<Answer<T>>,
): Promise<{ data: T; response: Response }> {
  const { data, error, response } = await settle(session, pending)
  if (!response.ok) {
    if (isProblem(error)) throw problemError(error)
    throw foreignServer(session, `answered with status ${response.status}`)
  }
  const contentType = response.headers.get('content-type') ?? ''
  const expected =
    response.status === 204 || /^(?:application\/json|text\/plain|text\/event-stream)\b/.test(contentType)
  if (!expected) throw foreignServer(session, `answered with ${contentType || 'no content type'}`)
  return { data: data as T, response } // its status and type are those of the contract
}

/** The document of an answer. Throws as callForAnswer. */
export async function call<T>(session: Session, pending: Promise<Answer<T>>): Promise<T> {
  return (await callForAnswer(session, pending)).data
}

async function settle<T>(session: Session, pending: Promise<Answer<T>>): Promise<Answer<T>> {
  try {
    return await pending
  } catch (error) {
    if (session.io.signal.aborted) throw new CliError(exitCodes.interrupted, 'interrupted', { cause: error })
    if (error instanceof SyntaxError) throw foreignServer(session, 'answered with something else than JSON')
    const why =
      error instanceof Error && error.name === 'TimeoutError'
        ? `no answer within ${answerWithinMs / 1000} s`
        : connectionFault(error)
    throw new CliError(exitCodes.unreachable, `no server can be reached at ${session.url}: ${why}`, {
      details: ['start it with: berth dev', 'or name another one with --server URL or BERTH_SERVER'],
      cause: error,
    })
  }
}

/** The error of an answer that no Berth server gives. */
export function foreignServer(session: Session, what: string): CliError {
  return new CliError(exitCodes.unreachable, `what ${what} at ${session.url} is not a Berth server`, {
    details: ['name another one with --server URL or BERTH_SERVER'],
  })
}

/** fetch hides the cause of a failed connection one level down: `TypeError: fetch failed`. */
function connectionFault(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  const code: unknown = Reflect.get(Object(cause), 'code')
  if (code === 'ECONNREFUSED') return 'connection refused'
  if (typeof code === 'string') return code
  return cause instanceof Error ? cause.message : String(cause)
}
