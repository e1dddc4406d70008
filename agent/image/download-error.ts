import { withoutUrlSecrets } from './url.ts'

/** Why an image cannot be had; stable strings that end up in an instance's `status.reason`. */
export type ImageDownloadErrorCode =
  | 'bad_url'
  | 'forbidden_address'
  | 'too_many_redirects'
  | 'http_status'
  | 'bad_response'
  | 'unreachable'
  | 'stalled'
  | 'too_slow'
  | 'too_large'
  | 'bad_checksum'
  | 'checksum_unavailable'
  | 'disk_full'
  | 'storage_failed'
  | 'not_an_image'
  | 'image_needs_uefi'
  | 'image_not_built'
  | 'image_not_available'
  | 'store_closed'

/** What a source says may be as long as it likes; what is passed on is not. Characters. */
const longestMessage = 4000

/**
 * An image that cannot be had. The message names the URL, without what may be secret in it, and the cause, and may be
 * shown to the user; `retryable` says whether the same request may succeed later without anyone changing anything.
 */
export class ImageDownloadError extends Error {
  readonly code: ImageDownloadErrorCode
  readonly retryable: boolean

  constructor(
    code: ImageDownloadErrorCode,
    message: string,
    options: { retryable: boolean; cause?: unknown } = { retryable: false },
  ) {
    super(
      withoutUrlSecrets(message).slice(0, longestMessage),
      options.cause === undefined ? undefined : { cause: options.cause },
    )
    this.name = 'ImageDownloadError'
    this.code = code
    this.retryable = options.retryable
  }
}
