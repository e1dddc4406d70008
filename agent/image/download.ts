import { lstat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { ChecksumParts } from '@berth/contract/images/checksum.ts'
import type { PrivateSources } from '@berth/contract/images/source.ts'
import { ImageDownloadError } from './download-error.ts'
import { hashFile } from './files.ts'
import { beginPartial, continuePartial, discardPartial, findPartial, type PartialNote, writeAt } from './partial.ts'
import { getSource, type SourceResponse } from './request.ts'
import { type DownloadLimits, defaultDownloadLimits, retryOutages } from './retry.ts'
import { parseSourceUrl } from './source.ts'

export interface DownloadProgress {
  receivedBytes: number
  /** null when the server does not say. */
  totalBytes: number | null
}

export interface SourceOptions {
  signal: AbortSignal
  /** Default false. */
  allowPrivateSources?: PrivateSources
  limits?: Partial<DownloadLimits>
}

export interface DownloadOptions extends SourceOptions {
  /** null: nothing is known about the content; then only the length is checked. */
  expected: ChecksumParts | null
  /** Default 64 GiB. */
  maxBytes?: number
  onProgress?: (progress: DownloadProgress) => void
}

const defaultMaxBytes = 64 * 1024 ** 3

/**
 * Download `url` into the file `partial`, continuing what an earlier call or process left there when that is of the
 * same URL and version, and check it. When it resolves the file is whole; file and note stay until the caller renames
 * or discards them. Throws ImageDownloadError, or the signal's reason; the partial then stays for resume, unless its
 * content is of no use (`bad_checksum`, `too_large`, `bad_response`). One call at a time per partial.
 */
export async function downloadFile(url: string, partial: string, options: DownloadOptions): Promise<void> {
  parseSourceUrl(url, options.allowPrivateSources ?? false)
  const limits = { ...defaultDownloadLimits, ...options.limits }
  const deadline = AbortSignal.timeout(limits.totalMs)
  const signal = AbortSignal.any([options.signal, deadline])
  try {
    await retryOutages(limits, signal, async (brought) => {
      const transfer: Transfer = { url, partial, signal, limits, options, brought }
      if (!(await alreadyWhole(transfer))) await transferOnce(transfer)
    })
    if (options.expected !== null) await refuseOtherContent(url, partial, options.expected, signal)
  } catch (error) {
    options.signal.throwIfAborted()
    if (deadline.aborted) {
      const what = `GET ${url}: not finished after ${limits.totalMs / 1000} s`
      throw new ImageDownloadError('too_slow', what, { retryable: true, cause: error })
    }
    if (!(error instanceof ImageDownloadError)) throw storageError(url, error)
    if (['bad_checksum', 'too_large', 'bad_response'].includes(error.code)) await discardPartial(partial)
    throw error
  }
}

interface Transfer {
  url: string
  partial: string
  signal: AbortSignal
  limits: DownloadLimits
  options: DownloadOptions
  brought: (bytes: number) => void
}

/** Whether an earlier process finished the transfer and was killed before the file was used. */
async function alreadyWhole({ url, partial, options, signal }: Transfer): Promise<boolean> {
  const earlier = await findPartial(partial, url)
  if (earlier === null || options.expected === null || earlier.sizeBytes !== earlier.note.totalBytes) return false
  return (await hashFile(partial, options.expected.algorithm, signal)) === options.expected.hex
}

/** One request, or two when what was there turns out to be no beginning of what the server has. */
async function transferOnce(transfer: Transfer): Promise<void> {
  const { url, partial } = transfer
  const earlier = await findPartial(partial, url)
  if (earlier === null) return receiveWhole(transfer, await request(transfer))
  const { sizeBytes, note } = earlier
  const response = await request(transfer, { range: `bytes=${sizeBytes}-`, 'if-range': note.validator })
  if (response.status === 200) return receiveWhole(transfer, response) // another version, or no ranges here
  const range = parseContentRange(response.header('content-range'))
  if (response.status === 206 && range?.start === sizeBytes && sameTotal(range.totalBytes, note.totalBytes)) {
    return receiveRest(transfer, response, sizeBytes, range)
  }
  response.close()
  if (response.status === 416 && range?.start === null && range.totalBytes === sizeBytes) return // nothing is missing
  await discardPartial(partial)
  return receiveWhole(transfer, await request(transfer))
}

const sameTotal = (a: number | null, b: number | null) => a === null || b === null || a === b

async function request(transfer: Transfer, headers: Record<string, string> = {}): Promise<SourceResponse> {
  const { url, signal, limits, options } = transfer
  const response = await getSource(url, {
    allowPrivateSources: options.allowPrivateSources ?? false,
    keepTls: options.expected === null,
    stallMs: limits.stallMs,
    maxRedirects: limits.maxRedirects,
    headers,
    signal,
  })
  const { status } = response
  if (status === 200 || (headers.range !== undefined && (status === 206 || status === 416))) return response
  response.close()
  throw statusError(url, status)
}

/** The error for a response that has no content for us. Server errors, 408 and 429 may pass; the rest will not. */
export function statusError(url: string, status: number): ImageDownloadError {
  const retryable = status >= 500 || status === 408 || status === 429
  return new ImageDownloadError('http_status', `GET ${url}: HTTP status ${status}`, { retryable })
}

async function receiveWhole(transfer: Transfer, response: SourceResponse): Promise<void> {
  const { url, partial } = transfer
  try {
    const length = response.header('content-length')
    const totalBytes = length === null ? null : Number(length)
    refuseEncoding(url, response)
    refuseLarger(transfer, totalBytes)
    const validator = findValidator(response)
    const note: PartialNote | null = validator === null ? null : { url, validator, totalBytes }
    await using file = await beginPartial(partial, note)
    await receive(transfer, response, file, 0, totalBytes)
  } finally {
    response.close()
  }
}

async function receiveRest(
  transfer: Transfer,
  response: SourceResponse,
  start: number,
  range: ContentRange,
): Promise<void> {
  const { url, partial } = transfer
  try {
    const length = response.header('content-length')
    if (length !== null && range.end !== null && Number(length) !== range.end + 1 - start) {
      const what = `GET ${url}: Content-Length ${length} contradicts Content-Range ${start}-${range.end}`
      throw new ImageDownloadError('bad_response', what)
    }
    refuseEncoding(url, response)
    refuseLarger(transfer, range.totalBytes)
    await using file = await continuePartial(partial)
    await receive(transfer, response, file, start, range.totalBytes)
  } finally {
    response.close()
  }
}

async function receive(
  transfer: Transfer,
  response: SourceResponse,
  file: Awaited<ReturnType<typeof continuePartial>>,
  start: number,
  totalBytes: number | null,
): Promise<void> {
  const { url, options } = transfer
  let position = start
  await refuseFullDisk(transfer, totalBytes === null ? 0 : totalBytes - start)
  options.onProgress?.({ receivedBytes: position, totalBytes })
  for await (const chunk of response.read()) {
    const end = position + chunk.length
    if (totalBytes !== null && end > totalBytes) {
      throw new ImageDownloadError('bad_response', `GET ${url}: more than the announced ${totalBytes} bytes`)
    }
    refuseLarger(transfer, end)
    await writeAt(file, chunk, position)
    position = end
    transfer.brought(chunk.length)
    options.onProgress?.({ receivedBytes: position, totalBytes })
  }
  if (totalBytes !== null && position !== totalBytes) {
    const what = `GET ${url}: the answer ended after ${position} of ${totalBytes} bytes`
    throw new ImageDownloadError('unreachable', what, { retryable: true })
  }
}

function refuseLarger({ url, options }: Transfer, bytes: number | null): void {
  const maxBytes = options.maxBytes ?? defaultMaxBytes
  if (bytes === null || bytes <= maxBytes) return
  throw new ImageDownloadError('too_large', `GET ${url}: larger than the limit of ${maxBytes} bytes`)
}

function refuseEncoding(url: string, response: SourceResponse): void {
  const encoding = response.header('content-encoding')
  if (encoding === null || encoding === 'identity') return
  throw new ImageDownloadError('bad_response', `GET ${url}: encoded as ${encoding} though that was not asked for`)
}

/** Better now than after an hour; what others write meanwhile shows as ENOSPC. */
async function refuseFullDisk({ url, partial }: Transfer, missingBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dirname(partial))
  if (missingBytes <= bavail * bsize) return
  throw diskFull(url, `${missingBytes} bytes are missing, ${bavail * bsize} are free in ${dirname(partial)}`)
}

function storageError(url: string, cause: unknown): ImageDownloadError {
  const message = cause instanceof Error ? cause.message : String(cause)
  const code = cause instanceof Error && 'code' in cause ? cause.code : null
  if (code === 'ENOSPC' || code === 'EDQUOT') return diskFull(url, message, cause)
  return new ImageDownloadError('storage_failed', `GET ${url}: ${message}`, { retryable: true, cause })
}

function diskFull(url: string, why: string, cause?: unknown): ImageDownloadError {
  const what = `GET ${url}: the disk is full: ${why}; what was received is kept`
  return new ImageDownloadError('disk_full', what, { retryable: true, cause })
}

async function refuseOtherContent(url: string, partial: string, expected: ChecksumParts, signal: AbortSignal) {
  const actual = await hashFile(partial, expected.algorithm, signal)
  if (actual === expected.hex) return
  const { size } = await lstat(partial)
  const name = expected.algorithm === 'sha256' ? 'SHA-256' : 'SHA-512'
  // Whoever may name a URL learns only that something else is there, not what: its length and digest are for the log.
  const cause = new Error(`the ${size} bytes have ${name} ${actual}`)
  const what = `GET ${url}: the file there is not the one that was registered, with ${name} ${expected.hex}`
  throw new ImageDownloadError('bad_checksum', what, { retryable: false, cause })
}

/** What If-Range may carry: a strong ETag, else Last-Modified; null when the server names no version. */
function findValidator(response: SourceResponse): string | null {
  const etag = response.header('etag')
  return etag?.startsWith('"') ? etag : response.header('last-modified')
}

interface ContentRange {
  start: number | null
  end: number | null
  totalBytes: number | null
}

/** `bytes 5-9/10`, `bytes 5-9/*` or, with 416, `bytes * /10` (RFC 9110, 14.4). */
function parseContentRange(text: string | null): ContentRange | null {
  const match = text === null ? null : /^bytes (?:(\d{1,15})-(\d{1,15})|\*)\/(\d{1,15}|\*)$/i.exec(text.trim())
  if (match === null) return null
  const number = (digits: string | undefined) => (digits === undefined || digits === '*' ? null : Number(digits))
  return { start: number(match[1]), end: number(match[2]), totalBytes: number(match[3]) }
}
