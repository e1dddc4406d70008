import type { Store } from './store/store.ts'

/** A document as it goes out. */
export interface RenderedDocument {
  /** JSON. */
  body: string
  etag: string
}

/** Most characters that the kept documents have together; about as many bytes. */
const maxCharacters = 64 * 1024 * 1024

/**
 * Documents by id that are already rendered, so that who asks for the same one again costs no query. One is dropped at
 * the commit that changes its resource, before the caller of that change is answered; the oldest go when there are too
 * many. It is for documents that show nothing but their own resource's row, and holds nothing when other processes may
 * write to the database, whose commits are not heard of here (docs/decisions/0022).
 */
export class DocumentCache {
  readonly #documents = new Map<string, RenderedDocument>()
  readonly #enabled: boolean
  readonly #limit: number
  #characters = 0
  #commits = 0

  constructor(store: Store, limit = maxCharacters) {
    this.#enabled = store.engine === 'sqlite'
    this.#limit = limit
    if (!this.#enabled) return
    store.onChange((ids) => {
      this.#commits++
      for (const id of ids) this.#remove(id)
    })
  }

  /** The document if it is kept, or what `render` makes of what it reads; errors of `render` are passed on. */
  async get(id: string, render: () => Promise<RenderedDocument>): Promise<RenderedDocument> {
    const kept = this.#documents.get(id)
    if (kept !== undefined) return kept
    const commits = this.#commits
    const document = await render()
    // what was read before a commit may be older than it
    if (this.#enabled && commits === this.#commits) this.#add(id, document)
    return document
  }

  #add(id: string, document: RenderedDocument): void {
    this.#remove(id)
    this.#documents.set(id, document)
    this.#characters += document.body.length
    for (const oldest of this.#documents.keys()) {
      if (this.#characters <= this.#limit) break
      this.#remove(oldest)
    }
  }

  #remove(id: string): void {
    const document = this.#documents.get(id)
    if (document === undefined) return
    this.#documents.delete(id)
    this.#characters -= document.body.length
  }
}
