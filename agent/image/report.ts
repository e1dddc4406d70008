import type { ObservedImage } from '@berth/contract/hosts/agent-protocol.ts'
import type { ImageStore } from './store.ts'

/**
 * What a host reports of its images: those it has, downloads or could not download. Looks at the folder again; a removal
 * that did not succeed is begun again and not waited for.
 */
export async function observeImages(images: ImageStore): Promise<ObservedImage[]> {
  void images.removeUnwanted()
  await images.rescan()
  const available = new Map(images.list().map((image) => [image.id, image]))
  const ids = new Set([...available.keys(), ...images.attempted()])
  return [...ids].flatMap((id): ObservedImage[] => {
    const { state, receivedBytes, totalBytes, reason, registeredChecksum } = images.status(id)
    if (state === 'missing') return []
    return [
      {
        id,
        state,
        received_bytes: receivedBytes,
        total_bytes: totalBytes,
        reason,
        ...(registeredChecksum === undefined ? {} : { registered_checksum: registeredChecksum }),
        image: available.get(id) ?? null,
      },
    ]
  })
}
