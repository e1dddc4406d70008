import type { Checksum, SourceOptions } from './download.ts'
import { statusError } from './download.ts'
import { ImageDownloadError } from './download-error.ts'
import { getSource } from './request.ts'
import { defaultDownloadLimits, retryOutages } from './retry.ts'

const maxChecksumBytes = 1024 * 1024

/**
 * The digest that the checksum file at `url` gives for `fileName`. Throws ImageDownloadError `checksum_unavailable`,
 * naming the cause, when the file cannot be had, is larger than 1 MiB or has no line for the name; or the signal's
 * reason.
 */
export async function fetchChecksum(url: string, fileName: string, options: SourceOptions): Promise<Checksum> {
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
        const checksum = parseChecksums(Buffer.concat(chunks).toString('utf8'), fileName)
        if (checksum !== null) return checksum
        throw new ImageDownloadError('checksum_unavailable', `GET ${url}: no single SHA-256 or SHA-512 of ${fileName}`)
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

/**
 * Find the digest of `fileName` in the text of a checksum file: lines of sha256sum and sha512sum (`<hex>  name`,
 * `<hex> *name`, also `./name`), of BSD and Fedora (`SHA256 (name) = <hex>`), or a file that is nothing but one digest.
 * The longer digest wins; null when there is none, or two that differ. Pure.
 */
export function parseChecksums(text: string, fileName: string): Checksum | null {
  const alone = /^\s*([0-9a-f]{64}|[0-9a-f]{128})\s*$/i.exec(text)?.[1]
  if (alone !== undefined) return checksumOf(alone)
  const found = new Set<string>()
  for (const line of text.split('\n')) {
    const coreutils = /^([0-9a-f]{64}|[0-9a-f]{128}) [ *](?:\.\/)?(.+?)\r?$/i.exec(line)
    if (coreutils?.[1] !== undefined && coreutils[2] === fileName) found.add(coreutils[1].toLowerCase())
    const bsd = /^(SHA256|SHA512) \((?:\.\/)?(.+)\) = ([0-9a-f]+)\s*$/i.exec(line)
    if (bsd?.[3] !== undefined && bsd[2] === fileName && bsd[3].length === (bsd[1]?.endsWith('256') ? 64 : 128)) {
      found.add(bsd[3].toLowerCase())
    }
  }
  const longest = Math.max(...[...found].map((hex) => hex.length))
  const [only, ...others] = [...found].filter((hex) => hex.length === longest)
  return only === undefined || others.length > 0 ? null : checksumOf(only)
}

function checksumOf(hex: string): Checksum {
  return { algorithm: hex.length === 64 ? 'sha256' : 'sha512', hex: hex.toLowerCase() }
}
