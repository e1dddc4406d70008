import { mkdir, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { DesiredImage, RemovedImage } from '@berth/contract/hosts/agent-protocol.ts'
import { checksumParts, pathOf } from '@berth/contract/images/checksum.ts'
import { type HostImage, isWantedImage } from '@berth/contract/images/images.ts'
import type { PrivateSources } from '@berth/contract/images/source.ts'
import type { Logger } from 'pino'
import { untilAborted } from '../sys/until-aborted.ts'
import { fetchChecksum } from './checksum.ts'
import { type DownloadProgress, downloadFile } from './download.ts'
import { ImageDownloadError, type ImageDownloadErrorCode } from './download-error.ts'
import { closedError, failureOf, needsUefiError, noSourceError } from './failure.ts'
import {
  ignoreMissing,
  imagePath,
  publishImage,
  refuseSmallDisk,
  removeRegisteredImage,
  scanImages,
  workPath,
} from './files.ts'
import { ForeignImageError } from './header.ts'
import { convertToQcow2, inspectImage } from './inspection.ts'
import { discardPartial, notePath } from './partial.ts'
import type { DownloadLimits } from './retry.ts'
import { withoutUrlSecrets } from './url.ts'

export interface ImageStoreOptions {
  /** `<data>/images`; made when missing. */
  directory: string
  log: Logger
  clock: { now: () => number }
  allowPrivateSources: PrivateSources
  /** Largest file downloaded. Default 64 GiB. */
  maxImageBytes?: number
  limits?: Partial<DownloadLimits>
}

/** An image of this host and the path of its disk. */
export interface LocalImage {
  image: HostImage
  path: string
}

export interface EnsureOptions {
  signal: AbortSignal
  onProgress?: (progress: DownloadProgress) => void
}

/** What the host reports of one image. `code` and `reason` (a sentence) are "" unless failed. */
export interface ImageStatus {
  state: 'missing' | 'downloading' | 'available' | 'failed'
  receivedBytes: number
  totalBytes: number | null
  code: ImageDownloadErrorCode | ''
  reason: string
  /** Checksum of the image made through the API that it is of. */
  registeredChecksum?: string
}

interface Failure {
  error: ImageDownloadError
  image: DesiredImage
}

interface Download {
  image: DesiredImage
  /** Two catalogue entries of the same source share a download. */
  source: string
  controller: AbortController
  waiters: Set<EnsureOptions>
  progress: DownloadProgress
  result: Promise<LocalImage>
}

const partialAgeMs = 24 * 3_600_000

/** How often unfinished files are looked for. */
const sweepEveryMs = 3_600_000

/**
 * The images of this host. Three write into the directory: this store by downloads, and `berth image build` and
 * `berth image import` in other processes; all through `publishImage`, so what has a description is whole.
 *
 * A download belongs to those who wait for it. At most one runs per image; it ends by success (all waiters get the
 * image), by failure (all get the same error, the next `ensure` tries afresh), or when its last waiter leaves (the
 * partial file stays for resume). Its entry is in `#downloads` until it touches no file any more, so two never write to
 * the same partial.
 *
 * A download for an image made through the API is marked with the checksum of that image, and goes when the server says
 * that the image is no more, or when another has its id. Whoever wants the id meanwhile waits for the removal.
 */
export class ImageStore {
  readonly #options: ImageStoreOptions
  #images = new Map<string, HostImage>()
  readonly #downloads = new Map<string, Download>()
  readonly #failures = new Map<string, Failure>()
  readonly #removals = new Map<string, Promise<void>>()
  /** What is to be gone and is not yet, as far as known, with why it could not be removed. */
  #unwanted = new Map<string, { image: RemovedImage; fault: string }>()
  #sweptAt = Number.NEGATIVE_INFINITY
  readonly #warned = new Map<string, string>()
  #closed = false

  constructor(options: ImageStoreOptions) {
    this.#options = options
  }

  /** The images found by the last `rescan` or made since. */
  list(): HostImage[] {
    return [...this.#images.values()]
  }

  /** Look at the directory: other processes build and import images. A waiter for one that appeared gets it at once. */
  async rescan(): Promise<void> {
    const found = await scanImages(this.#options.directory, this.#options.log, this.#warned)
    this.#images = new Map(found.map((image) => [image.id, image]))
    for (const image of found) {
      const running = this.#downloads.get(image.id)
      if (running !== undefined && !isWantedImage(image, running.image)) continue
      this.#failures.delete(image.id)
      running?.controller.abort(new AppearedLocally(image))
    }
    const now = this.#options.clock.now()
    if (now - this.#sweptAt < sweepEveryMs) return
    this.#sweptAt = now
    await this.removeStalePartials(now)
  }

  /**
   * Have these downloads gone, and what was begun of them; tried again at each call of `removeUnwanted` until the next
   * list.
   */
  setUnwanted(images: readonly RemovedImage[]): void {
    this.#unwanted = new Map(images.map((image) => [image.id, { image, fault: '' }]))
    void this.removeUnwanted()
  }

  /** Remove what is still there of what is to be gone. A failure is logged once. */
  async removeUnwanted(): Promise<void> {
    await Promise.all([...this.#unwanted.values()].map(({ image }) => this.#remove(image)))
  }

  /**
   * The image and its disk, downloaded when it is not here and has a source. Throws ImageDownloadError (also
   * `image_not_built` when only a recipe exists, `image_not_available` when nothing does, `image_needs_uefi` when it is
   * here and no instance can boot it), or the reason of `options.signal`, which takes this waiter off the download.
   */
  async ensure(image: DesiredImage, options: EnsureOptions): Promise<LocalImage> {
    const local = await this.#have(image, options)
    if (local.image.firmware === 'uefi') throw needsUefiError(image)
    return local
  }

  async #have(image: DesiredImage, options: EnsureOptions): Promise<LocalImage> {
    const { signal } = options
    const source = sourceOf(image)
    for (;;) {
      signal.throwIfAborted()
      const removal = this.#removals.get(image.id)
      if (removal !== undefined) {
        await settled(removal, signal)
        continue
      }
      const local = await this.#findLocal(image.id)
      if (this.#closed) throw closedError()
      if (local !== null && isWantedImage(local.image, image)) return local
      const { registered_checksum: mark } = local?.image ?? {}
      if (mark !== undefined && !this.#downloads.has(image.id)) {
        await untilAborted(this.#remove({ id: image.id, registered_checksum: mark }), signal) // of an image before this one
        const { fault } = this.#unwanted.get(image.id) ?? { fault: '' }
        if (fault !== '') throw new ImageDownloadError('storage_failed', fault, { retryable: true })
        continue
      }
      const running = this.#downloads.get(image.id)
      if (running === undefined) return this.#join(this.#start(image, source), options)
      if (running.source === source && !running.controller.signal.aborted) return this.#join(running, options)
      // Of another source, or on its way out: it must let go of the files first.
      await settled(running.result, signal)
    }
  }

  /** Ids of images that are being downloaded or whose last download failed. */
  attempted(): string[] {
    return [...new Set([...this.#downloads.keys(), ...this.#failures.keys()])]
  }

  status(id: string): ImageStatus {
    const well = { code: '', reason: '' } as const
    const of = (known: DesiredImage) =>
      known.registered && known.checksum !== undefined ? { registeredChecksum: known.checksum } : {}
    const image = this.#images.get(id)
    if (image !== undefined) {
      return { state: 'available', receivedBytes: image.size_bytes, totalBytes: image.size_bytes, ...well }
    }
    const running = this.#downloads.get(id)
    if (running !== undefined) return { state: 'downloading', ...running.progress, ...well, ...of(running.image) }
    const nothing = { receivedBytes: 0, totalBytes: null }
    const failure = this.#failures.get(id)
    if (failure === undefined) return { state: 'missing', ...nothing, ...well }
    const { code, message: reason } = failure.error
    return { state: 'failed', ...nothing, code, reason, ...of(failure.image) }
  }

  /** Remove what downloads, imports and builds left unfinished more than a day before `now` (ms UTC). */
  async removeStalePartials(now: number): Promise<void> {
    const { directory, log } = this.#options
    for (const name of await this.stalePartials(now)) {
      const path = join(directory, name)
      await rm(path, { force: true })
      await rm(notePath(path.replace(/\.meta$/, '')), { force: true })
      log.info({ file: path }, 'unfinished image file removed')
    }
  }

  /** Names of unfinished files that no download writes and that are too old to be gone on with. */
  async stalePartials(now: number): Promise<string[]> {
    const { directory } = this.#options
    const names = (await readdir(directory).catch(ignoreMissing)) ?? []
    const inUse = new Set([...this.#downloads.keys()].map((id) => downloadPath(directory, id)))
    const stale: string[] = []
    for (const name of names.filter((each) => /\.partial(?:\.meta)?$/.test(each))) {
      const partial = join(directory, name).replace(/\.meta$/, '')
      if (inUse.has(partial)) continue
      // A note is as old as its file: it is written once, the file for hours.
      const file =
        (await stat(partial).catch(ignoreMissing)) ?? (await stat(join(directory, name)).catch(ignoreMissing))
      if (file !== undefined && now - file.mtimeMs > partialAgeMs) stale.push(name)
    }
    return stale
  }

  /** Stop all downloads; their waiters fail with `store_closed`, partials stay. Resolves when no file is touched. */
  async close(): Promise<void> {
    this.#closed = true
    const running = [...this.#downloads.values()]
    for (const download of running) download.controller.abort(closedError())
    await Promise.allSettled([...running.map((download) => download.result), ...this.#removals.values()])
  }

  async #findLocal(id: string): Promise<LocalImage | null> {
    const { directory } = this.#options
    const path = imagePath(directory, id)
    const known = this.#images.get(id)
    const disk = known === undefined ? undefined : await stat(path).catch(ignoreMissing)
    if (known !== undefined && disk?.size === known.size_bytes) return { image: known, path }
    await this.rescan()
    const image = this.#images.get(id)
    return image === undefined ? null : { image, path }
  }

  #start(image: DesiredImage, source: string): Download {
    const { source_url: url } = image
    if (url === undefined) throw noSourceError(image)
    this.#failures.delete(image.id)
    const controller = new AbortController()
    const download: Download = {
      image,
      source,
      controller,
      waiters: new Set(),
      progress: { receivedBytes: 0, totalBytes: null },
      result: this.#run(image, url, controller.signal, (progress) => {
        download.progress = progress
        for (const waiter of download.waiters) waiter.onProgress?.(progress)
      }),
    }
    this.#downloads.set(image.id, download)
    return download
  }

  // Resolves or rejects for the waiters only after the entry is gone: whoever asks again starts afresh.
  async #run(
    image: DesiredImage,
    url: string,
    signal: AbortSignal,
    onProgress: (progress: DownloadProgress) => void,
  ): Promise<LocalImage> {
    const { directory } = this.#options
    const log = this.#options.log.child({ image: image.id, url: withoutUrlSecrets(url) })
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 })
      log.info('image download started')
      const published = await this.#download(image, url, signal, onProgress)
      this.#images.set(image.id, published)
      log.info({ bytes: published.size_bytes }, 'image downloaded')
      return { image: published, path: imagePath(directory, image.id) }
    } catch (error) {
      if (signal.reason instanceof AppearedLocally) {
        await discardPartial(downloadPath(directory, image.id))
        return { image: signal.reason.image, path: imagePath(directory, image.id) }
      }
      if (signal.aborted) {
        log.info('image download stopped: nobody waits for it')
        throw signal.reason
      }
      const failure = failureOf(image, url, error)
      this.#failures.set(image.id, { error: failure, image })
      log.warn({ code: failure.code, err: failure }, 'image download failed')
      throw failure
    } finally {
      this.#downloads.delete(image.id)
    }
  }

  async #download(
    image: DesiredImage,
    url: string,
    signal: AbortSignal,
    onProgress: (progress: DownloadProgress) => void,
  ): Promise<HostImage> {
    const { directory, allowPrivateSources, limits, maxImageBytes, clock } = this.#options
    const network = { signal, allowPrivateSources, ...(limits === undefined ? {} : { limits }) }
    const partial = downloadPath(directory, image.id)
    const converted = workPath(directory, image.id, 'convert')
    const checksum =
      image.checksum ??
      (image.checksum_url === undefined ? null : await fetchChecksum(image.checksum_url, pathOf(url), network))
    await downloadFile(url, partial, {
      ...network,
      expected: checksum === null ? null : checksumParts(checksum),
      onProgress,
      ...(maxImageBytes === undefined ? {} : { maxBytes: maxImageBytes }),
    })
    try {
      const { format, virtualSizeBytes, firmware } = await inspectImage(partial, { signal })
      refuseSmallDisk(virtualSizeBytes, image.min_disk_gb)
      if (format === 'raw') await convertToQcow2(partial, converted, { signal })
      const { id, title, min_disk_gb, architecture, default_user, network: addressing, datasource = 'disk' } = image
      const { ready_timeout_seconds: timeout } = image
      const marked = image.registered && image.checksum !== undefined ? { registered_checksum: image.checksum } : {}
      const about = { id, title, min_disk_gb, architecture, default_user, network: addressing, datasource }
      const published = await publishImage(
        directory,
        format === 'raw' ? converted : partial,
        {
          ...about,
          ...(timeout === undefined ? {} : { ready_timeout_seconds: timeout }),
          origin: 'downloaded',
          source_url: url,
          firmware,
          ...marked,
        },
        { now: () => clock.now(), signal },
      )
      await discardPartial(partial)
      return published
    } catch (error) {
      if (error instanceof ForeignImageError) await discardPartial(partial)
      throw error
    } finally {
      await rm(converted, { force: true })
    }
  }

  /** One removal of an id at a time; its fault, if any, is kept with what is unwanted. */
  #remove(image: RemovedImage): Promise<void> {
    const running = this.#removals.get(image.id)
    if (running !== undefined) return running
    const removal = this.#removeNow(image).finally(() => this.#removals.delete(image.id))
    this.#removals.set(image.id, removal)
    return removal
  }

  async #removeNow({ id, registered_checksum: mark }: RemovedImage): Promise<void> {
    const { directory, log } = this.#options
    const running = this.#downloads.get(id)
    if (running !== undefined) return // it ends when nobody waits for it; then comes the next attempt
    try {
      if (this.#failures.get(id)?.image.checksum === mark) this.#failures.delete(id)
      await discardPartial(downloadPath(directory, id))
      await removeRegisteredImage(directory, id, mark)
      if (this.#images.get(id)?.registered_checksum === mark) {
        this.#images.delete(id)
        log.info({ image: id }, 'the download of an image that is no more was removed')
      }
      this.#unwanted.delete(id)
    } catch (error) {
      const fault = `the image ${id} cannot be removed: ${error instanceof Error ? error.message : String(error)}`
      if (this.#unwanted.get(id)?.fault !== fault) log.warn({ image: id, err: error }, 'an image cannot be removed now')
      this.#unwanted.set(id, { image: { id, registered_checksum: mark }, fault })
    }
  }

  async #join(download: Download, options: EnsureOptions): Promise<LocalImage> {
    download.waiters.add(options)
    try {
      return await untilAborted(download.result, options.signal)
    } finally {
      download.waiters.delete(options)
      if (download.waiters.size === 0) download.controller.abort(new Error('no instance waits for the image any more'))
    }
  }
}

/** Why a download stops: another process published the image meanwhile. */
class AppearedLocally extends Error {
  readonly image: HostImage

  constructor(image: HostImage) {
    super('the image was published by another process')
    this.image = image
  }
}

function downloadPath(directory: string, id: string): string {
  return join(directory, `${id}.qcow2.download.partial`)
}

function sourceOf(image: DesiredImage): string {
  return JSON.stringify([image.source_url, image.checksum, image.checksum_url, image.registered])
}

/** Resolves when `promise` has ended either way. */
async function settled(promise: Promise<unknown>, signal: AbortSignal): Promise<void> {
  await untilAborted(
    promise.then(
      () => undefined,
      () => undefined,
    ),
    signal,
  )
}
