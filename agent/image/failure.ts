import type { CatalogueImage } from '@berth/contract/images/images.ts'
import { CommandError } from '../sys/run-command.ts'
import { ImageDownloadError, type ImageDownloadErrorCode } from './download-error.ts'
import { ForeignImageError } from './header.ts'

/** What keeps an image that has no URL from being had. */
export function noSourceError(image: CatalogueImage): ImageDownloadError {
  if (image.recipe !== undefined) {
    const what = `the image ${image.id} is not built on this host; build it there: berth image build ${image.id}`
    return new ImageDownloadError('image_not_built', what)
  }
  return new ImageDownloadError(
    'image_not_available',
    `the image ${image.id} is not on this host and has no source; import it there: berth image import FILE --id ${image.id}`,
  )
}

/** What keeps an image that is here from being booted. */
export function needsUefiError(image: CatalogueImage): ImageDownloadError {
  const what = `the image ${image.id} boots by UEFI only: its disk has nothing that a BIOS could run`
  return new ImageDownloadError('image_needs_uefi', what)
}

/** What waiters of a store that is closed get. */
export function closedError(): ImageDownloadError {
  return new ImageDownloadError('store_closed', 'the agent is stopping', { retryable: true })
}

/** The one error that every waiter of a failed download gets. */
export function failureOf(image: CatalogueImage, url: string, error: unknown): ImageDownloadError {
  const { code, retryable } = classify(error)
  const told = error instanceof Error ? error.message : String(error)
  const message = told.startsWith('GET ') ? told : `GET ${url}: ${told}`
  const hint = image.recipe === undefined ? '' : `; it can be built on the host: berth image build ${image.id}`
  return new ImageDownloadError(code, `${message}${hint}`, { retryable, cause: error })
}

function classify(error: unknown): { code: ImageDownloadErrorCode; retryable: boolean } {
  if (error instanceof ImageDownloadError) return error
  if (error instanceof ForeignImageError) return { code: 'not_an_image', retryable: false }
  // qemu-img missing or its output not writable: this host's trouble, not the image's.
  return { code: 'storage_failed', retryable: error instanceof CommandError || error instanceof Error }
}
