import { findChecksum } from '@berth/contract/images/checksum.ts'
import type { SourceOptions } from './download.ts'
import { statusError } from './download.ts'
import { ImageDownloadError } from './download-error.ts'
import { getSource } from './request.ts'
import { defaultDownloadLimits, retryOutages } from './retry.ts'

const maxChecksumBytes = 1024 * 1024

/**
 * The checksum that the checksum file at `url` gives for the file at `path` (of its URL, decoded). Throws
 * ImageDownloadError `checksum_unavailable`, naming the cause, when the file cannot be had, is larger than 1 MiB or has
 * no line for the name; or the signal's reason.
 */
export async function fetchChecksum(url: string, path: string, options: SourceOptions): Promise<string> {
  const limits = { ...defaultDownloadLimits, ...options.limits }
  const { signal } = options
  try {
    return await retryOutages(limits, signal, async () => {
      const response = await getSource(url, {
        allowPrivateSources: options.allowPrivateSources ?? false,
        keepTls: true,
        stallMs: limits.stallMs,
        maxRedirects: limits.maxRedirects,
        signal,
      })
      try {
        if (response.status !== 200) throw statusError(url, response.status)
        const chunks: Buffer[] = []
        let size = 0
        for await (const chunk of response.read()) {
          size += chunk.length
          if (size > maxChecksumBytes) {
            throw new ImageDownloadError('too_large', `GET ${url}: a checksum file has at most 1 MiB`)
          }
          chunks.push(chunk)
        }
        const found = findChecksum(Buffer.concat(chunks).toString('utf8'), path)
        if ('checksum' in found) return found.checksum
        throw new ImageDownloadError('checksum_unavailable', `GET ${url}: the file ${found.fault}`)
      } finally {
        response.close()
      }
    })
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof ImageDownloadError) || error.code === 'checksum_unavailable') throw error
    const message = `the checksum file cannot be had: ${error.message}`
    throw new ImageDownloadError('checksum_unavailable', message, { retryable: error.retryable, cause: error })
  }
}
