import { type LookupAddress, type LookupOptions, lookup } from 'node:dns'
import type { LookupFunction } from 'node:net'
import { networkInterfaces } from 'node:os'
import { addressFault, type PrivateSources, type SourceFault, sourceFault } from '@berth/contract/images/source.ts'
import { ImageDownloadError } from './download-error.ts'

/** The addresses that this machine has at this moment, on any interface. */
export function hostAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap((entries = []) => entries.map(({ address }) => address))
}

/**
 * Parse the URL of an image source, or of what it redirects to, right before it is connected to. Throws
 * ImageDownloadError for what `sourceFault` finds, and for an address of this machine.
 */
export function parseSourceUrl(text: string, allowPrivateSources: PrivateSources, base?: URL): URL {
  const url = URL.parse(text, base)
  // of what is no URL nobody knows which part is a secret
  if (url === null) throw new ImageDownloadError('bad_url', 'what is not a URL')
  refuse(sourceFault(url, { allowPrivateSources, ownAddresses: hostAddresses() }), url.href)
  return url
}

/**
 * A `lookup` for node:http that refuses names with a forbidden address among theirs. The connection goes to the very
 * addresses that were checked here, so a name that changes its answer between check and use gains nothing.
 */
export function guardedLookup(url: string, allowPrivateSources: PrivateSources): LookupFunction {
  return (hostname, options, callback) => {
    const all: LookupOptions & { all: true } = { ...options, all: true }
    lookup(hostname, all, (error, addresses: LookupAddress[]) => {
      if (error !== null) return callback(error, '', 0)
      try {
        const rules = { allowPrivateSources, ownAddresses: hostAddresses() }
        for (const { address } of addresses) refuse(addressFault(address, rules), url)
      } catch (refusal) {
        // Always ImageDownloadError; node:http hands it on as the request's error.
        return callback(refusal instanceof Error ? refusal : new Error(String(refusal)), '', 0)
      }
      if (options.all === true) return callback(null, addresses)
      const [first] = addresses
      return callback(null, first?.address ?? '', first?.family ?? 0)
    })
  }
}

function refuse(fault: SourceFault | null, url: string): void {
  if (fault === null) return
  const message = fault.code === 'bad_url' ? fault.message : `GET ${url}: ${fault.message}`
  throw new ImageDownloadError(fault.code, message)
}
