import type { DesiredImage, ObservedImage, RemovedImage } from '@berth/contract/hosts/agent-protocol.ts'
import { sha256Of } from '@berth/contract/images/checksum.ts'
import { bytesPerGib } from '@berth/contract/units.ts'

/**
 * The images of a simulated host as it reports them. It has those of a catalogue without saying so; one that was made
 * through the API is downloaded, in no bytes, when an instance first needs it.
 */
export class SimulatedImages {
  readonly #reports = new Map<string, ObservedImage>()
  onChange: () => void = () => {}

  list(): ObservedImage[] {
    return [...this.#reports.values()]
  }

  /** Do the work of a download, unless the image is there. */
  async have(image: DesiredImage, work: () => Promise<void>, signal: AbortSignal): Promise<void> {
    const { checksum } = image
    if (!image.registered || checksum === undefined) return work()
    const before = this.#reports.get(image.id)
    if (before?.state === 'available' && before.image?.registered_checksum === checksum) return
    const begun = { id: image.id, received_bytes: 0, total_bytes: null, reason: '', registered_checksum: checksum }
    this.#report({ ...begun, state: 'downloading', image: null })
    try {
      await work()
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      if (signal.aborted) this.#forget(image.id)
      else this.#report({ ...begun, state: 'failed', reason, image: null })
      throw error
    }
    const { id, title, min_disk_gb, architecture, default_user, network, source_url = '' } = image
    const held = {
      ...{ id, title, min_disk_gb, architecture, default_user, network, source_url },
      sha256: sha256Of(checksum) || '0'.repeat(64), // of no bytes, which nobody reads
      origin: 'downloaded' as const,
      registered_checksum: checksum,
      size_bytes: 0,
      virtual_size_bytes: min_disk_gb * bytesPerGib,
      created_at: new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
    }
    this.#report({ ...begun, state: 'available', image: held })
  }

  remove(images: readonly RemovedImage[]): void {
    for (const { id, registered_checksum: mark } of images) {
      if (this.#reports.get(id)?.registered_checksum === mark) this.#forget(id)
    }
  }

  /** Downloads end with the agent that began them. */
  abandon(): void {
    for (const { id, state } of this.list()) if (state === 'downloading') this.#reports.delete(id)
  }

  #report(report: ObservedImage): void {
    this.#reports.set(report.id, report)
    this.onChange()
  }

  #forget(id: string): void {
    this.#reports.delete(id)
    this.onChange()
  }
}
