import http, { type IncomingMessage } from 'node:http'
import https from 'node:https'
import type { PrivateSources } from '@berth/contract/images/source.ts'
import { ImageDownloadError } from './download-error.ts'
import { guardedLookup, parseSourceUrl } from './source.ts'

export interface SourceRequestOptions {
  allowPrivateSources: PrivateSources
  /** Longest wait for the response's head, and then for each next byte, in milliseconds. */
  stallMs: number
  maxRedirects: number
  /** Refuse a redirect from https to http: nothing else vouches for the bytes. */
  keepTls: boolean
  headers?: Record<string, string>
  signal: AbortSignal
}

/** An answered GET: `read()` must be read to its end or `close()` called. */
export interface SourceResponse {
  status: number
  header: (name: string) => string | null
  /** The body in chunks. Throws ImageDownloadError, or the signal's reason. */
  read: () => AsyncGenerator<Buffer, void, void>
  close: () => void
}

/**
 * GET a URL of an image source, following redirects; each hop is checked like the first. Throws ImageDownloadError, or
 * the signal's reason; whatever status the last hop has is for the caller to judge.
 */
export async function getSource(url: string, options: SourceRequestOptions): Promise<SourceResponse> {
  let current = parseSourceUrl(url, options.allowPrivateSources)
  for (let redirects = 0; ; redirects += 1) {
    const response = await getOnce(current, url, options)
    const location = response.header('location')
    if (![301, 302, 303, 307, 308].includes(response.status) || location === null) return response
    response.close()
    if (redirects >= options.maxRedirects) {
      throw new ImageDownloadError('too_many_redirects', `GET ${url}: more than ${options.maxRedirects} redirects`)
    }
    const next = redirectTarget(location, current, url, options)
    if (options.keepTls && current.protocol === 'https:' && next.protocol === 'http:') {
      throw new ImageDownloadError('bad_url', `GET ${url}: redirects from https to ${next.href} without a checksum`)
    }
    current = next
  }
}

function redirectTarget(location: string, from: URL, url: string, options: SourceRequestOptions): URL {
  try {
    return parseSourceUrl(location, options.allowPrivateSources, from)
  } catch (cause) {
    if (!(cause instanceof ImageDownloadError)) throw cause
    throw new ImageDownloadError(cause.code, `GET ${url}: redirected to ${cause.message}`, { retryable: false, cause })
  }
}

/**
 * One exchange. The first failure, whoever notices it (a timer, the signal, the socket, the parser), is the one
 * reported: it destroys the request, and what the streams throw after that only echoes it.
 */
function getOnce(hop: URL, url: string, options: SourceRequestOptions): Promise<SourceResponse> {
  const { signal, stallMs } = options
  signal.throwIfAborted()
  const head = Promise.withResolvers<SourceResponse>()
  // What arrived and is not read yet: kept here, since a cut connection makes Node's stream drop its own buffer, and
  // what has been received need not be asked for again.
  const arrived: Buffer[] = []
  let arrivedBytes = 0
  let ended = false
  let failure: { cause: unknown } | null = null
  let wakeReader = () => {}
  const request = (hop.protocol === 'https:' ? https : http).request(hop, {
    agent: false, // a connection each: none outlives its download, none is shared with an unchecked address
    headers: { 'accept-encoding': 'identity', 'user-agent': 'berth-agent', ...options.headers },
    lookup: guardedLookup(hop.href, options.allowPrivateSources),
  })
  const fail = (cause: unknown) => {
    failure ??= { cause }
    head.reject(failure.cause)
    wakeReader()
    request.destroy()
  }
  const failConnection = (error: Error) => fail(connectionError(url, error))
  const stalled = () => {
    const what = `GET ${url}: no byte for ${stallMs / 1000} s`
    fail(new ImageDownloadError('stalled', what, { retryable: true }))
  }
  const abort = () => fail(signal.reason)
  let timer = setTimeout(stalled, stallMs)
  signal.addEventListener('abort', abort, { once: true })
  request.on('error', failConnection)
  request.on('close', () => {
    clearTimeout(timer)
    signal.removeEventListener('abort', abort)
  })
  request.on('response', (response) => {
    clearTimeout(timer)
    response.on('error', failConnection)
    response.on('data', (chunk: Buffer) => {
      arrived.push(chunk)
      arrivedBytes += chunk.length
      if (arrivedBytes >= maxArrivedBytes) response.pause()
      wakeReader()
    })
    response.on('end', () => {
      if (!response.complete) return failConnection(new Error('the connection was cut'))
      ended = true
      wakeReader()
    })
    head.resolve({
      status: response.statusCode ?? 0,
      header: (name) => {
        const value = response.headers[name]
        return typeof value === 'string' ? value : null
      },
      read: () => read(response),
      close: () => request.destroy(),
    })
  })
  request.end()
  return head.promise

  async function* read(response: IncomingMessage): AsyncGenerator<Buffer, void, void> {
    try {
      for (;;) {
        const chunk = arrived.shift()
        if (chunk !== undefined) {
          arrivedBytes -= chunk.length
          yield chunk
        } else if (failure !== null) throw failure.cause
        else if (ended) return
        else await moreOf(response)
      }
    } finally {
      request.destroy()
    }
  }

  async function moreOf(response: IncomingMessage): Promise<void> {
    const more = Promise.withResolvers<void>()
    wakeReader = more.resolve
    // Armed only while the reader waits for the network: a slow disk is no stall.
    timer = setTimeout(stalled, stallMs)
    response.resume()
    await more.promise.finally(() => clearTimeout(timer))
  }
}

const maxArrivedBytes = 1024 * 1024

function connectionError(url: string, error: unknown): ImageDownloadError {
  if (error instanceof ImageDownloadError) return error
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  // The parser's own codes: bytes after the announced length, a malformed head or chunk.
  if (code.startsWith('HPE_')) {
    const what = `GET ${url}: the server does not keep to HTTP (${code}: ${describe(error)})`
    return new ImageDownloadError('bad_response', what, { retryable: false, cause: error })
  }
  // Node calls a response that was cut "aborted", which reads as if somebody here had done it.
  const why = code === 'ECONNRESET' ? 'the connection was cut' : describe(error)
  return new ImageDownloadError('unreachable', `GET ${url}: ${why}`, { retryable: true, cause: error })
}

// A connection tried over several addresses fails with an AggregateError whose own message is empty.
function describe(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(describe).join(', ')
  return error instanceof Error ? error.message : String(error)
}
