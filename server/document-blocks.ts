/** A document as it goes out. */
export interface RenderedDocument {
  id: string
  /** JSON. */
  body: string
  etag: string
}

/** Before each document: its length, whether it is ASCII alone, and the length of its ETag. */
const headBytes = 6

/**
 * Documents by id as bytes, in blocks outside of the JavaScript heap: there a hundred thousand texts would be copied and
 * looked at by the garbage collector again and again, which also lets the heap grow to a multiple of them. They are
 * written one behind the other; when every block is full, the one written longest ago begins anew and what is in it is
 * forgotten.
 */
export class DocumentBlocks {
  readonly #blockBytes: number
  readonly #most: number
  readonly #blocks: { bytes: Buffer; ids: string[] }[] = []
  /** Where a document begins: number of the block × `#blockBytes` + position in it. */
  readonly #places = new Map<string, number>()
  #current = -1
  #used = 0

  /** Keeps at most this many bytes, and one block at least. A document that does not fit a block is not kept. */
  constructor(mostBytes: number, blockBytes = 1024 * 1024) {
    this.#blockBytes = blockBytes
    this.#most = Math.max(1, Math.floor(mostBytes / blockBytes))
  }

  /** The document as it was set, or null when it is not here. */
  get(id: string): RenderedDocument | null {
    const place = this.#places.get(id)
    if (place === undefined) return null
    const { bytes } = this.#block(Math.floor(place / this.#blockBytes))
    const head = place % this.#blockBytes
    const etagAt = head + headBytes
    const bodyAt = etagAt + bytes.readUInt8(head + 5)
    // text of ASCII alone is copied as it is, which takes a fraction of the time
    const encoding = bytes.readUInt8(head + 4) === 1 ? 'latin1' : 'utf8'
    return {
      id,
      etag: bytes.toString('latin1', etagAt, bodyAt),
      body: bytes.toString(encoding, bodyAt, bodyAt + bytes.readUInt32LE(head)),
    }
  }

  /** Keep a document in place of the one before. */
  set({ id, body, etag }: RenderedDocument): void {
    this.#places.delete(id)
    const bodyBytes = Buffer.byteLength(body)
    const needed = headBytes + etag.length + bodyBytes
    if (needed > this.#blockBytes) return
    if (this.#current === -1 || this.#used + needed > this.#blockBytes) this.#beginBlock()
    const { bytes, ids } = this.#block(this.#current)
    const head = this.#used
    bytes.writeUInt32LE(bodyBytes, head)
    bytes.writeUInt8(bodyBytes === body.length ? 1 : 0, head + 4)
    bytes.writeUInt8(etag.length, head + 5)
    bytes.write(etag, head + headBytes, 'latin1')
    bytes.write(body, head + headBytes + etag.length)
    ids.push(id)
    this.#places.set(id, this.#current * this.#blockBytes + head)
    this.#used += needed
  }

  /** Forget a document; its bytes are used again when its block is. */
  delete(id: string): void {
    this.#places.delete(id)
  }

  #beginBlock(): void {
    this.#current = (this.#current + 1) % this.#most
    this.#used = 0
    if (this.#current === this.#blocks.length) {
      this.#blocks.push({ bytes: Buffer.allocUnsafeSlow(this.#blockBytes), ids: [] })
      return
    }
    const { ids } = this.#block(this.#current)
    for (const id of ids) {
      const place = this.#places.get(id)
      if (place !== undefined && Math.floor(place / this.#blockBytes) === this.#current) this.#places.delete(id)
    }
    ids.length = 0
  }

  #block(number: number) {
    const block = this.#blocks[number]
    if (block === undefined) throw new Error(`there is no block ${number}`)
    return block
  }
}
