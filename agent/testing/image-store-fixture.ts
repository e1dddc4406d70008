import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CatalogueImage } from '@berth/contract/images/images.ts'
import pino from 'pino'
import { ImageDownloadError } from '../image/download-error.ts'
import { ImageStore, type ImageStoreOptions } from '../image/store.ts'
import { FaultyFileServer } from './faulty-file-server.ts'
import { hasQemuImg, makeQcow2 } from './qemu-img.ts'
import { rejection } from './rejection.ts'

/** Whether the fixture has a disk image to serve. */
export const withQemuImg = await hasQemuImg()

/** The stores' clock stands still at 2026-11-01. */
export const now = Date.UTC(2026, 10, 1)

/** An image store on an empty directory, a server that has one disk image, and a directory for other files. */
export class ImageStoreFixture {
  readonly server: FaultyFileServer
  readonly directory: string
  readonly outside: string
  /** What the server has at /disk.qcow2; empty without qemu-img. */
  readonly disk: Buffer
  readonly store: ImageStore

  private constructor(server: FaultyFileServer, directory: string, outside: string, disk: Buffer) {
    this.server = server
    this.directory = directory
    this.outside = outside
    this.disk = disk
    this.store = this.newStore()
  }

  static async open(): Promise<ImageStoreFixture> {
    const server = await FaultyFileServer.start()
    const directory = await mkdtemp(join(tmpdir(), 'berth-store-'))
    const outside = await mkdtemp(join(tmpdir(), 'berth-source-'))
    let disk = Buffer.alloc(0)
    if (withQemuImg) {
      await makeQcow2(join(outside, 'disk.qcow2'))
      disk = await readFile(join(outside, 'disk.qcow2'))
      server.put('/disk.qcow2', disk)
    }
    return new ImageStoreFixture(server, directory, outside, disk)
  }

  /** Another store on the same directory, as after a restart; whoever asks for it closes it. */
  newStore(options: Partial<ImageStoreOptions> = {}): ImageStore {
    return new ImageStore({
      directory: this.directory,
      log: pino({ level: 'silent' }),
      clock: { now: () => now },
      allowPrivateSources: ['127.0.0.1'],
      limits: { delay: async () => undefined },
      ...options,
    })
  }

  /** The catalogue's entry of the server's image. */
  remote(more: Partial<CatalogueImage> = {}): CatalogueImage {
    return entry({ source_url: this.server.url('/disk.qcow2'), checksum: `sha256:${sha256(this.disk)}`, ...more })
  }

  /** Close the store and leave nothing. */
  async close(): Promise<void> {
    await this.store.close()
    await this.server.close()
    await rm(this.directory, { recursive: true, force: true })
    await rm(this.outside, { recursive: true, force: true })
  }
}

/** An entry of a catalogue that says nothing of where the image is. */
export function entry(more: Partial<CatalogueImage> = {}): CatalogueImage {
  return {
    id: 'debian-12',
    title: 'Debian 12',
    min_disk_gb: 1,
    architecture: 'x86_64',
    default_user: 'debian',
    network: 'dhcp',
    ...more,
  }
}

export const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

/** Options of a call that nobody ends. */
export const forever = () => ({ signal: new AbortController().signal })

/** The download's error that a promise rejects with; throws what else became of it. */
export const failure = (promise: Promise<unknown>) => rejection(promise, ImageDownloadError)
