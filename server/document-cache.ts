import { totalmem } from 'node:os'
import { DocumentBlocks, type RenderedDocument } from './document-blocks.ts'
import type { Store } from './store/store.ts'

/** Most bytes that the kept documents have together: room for 100,000 usual instances, where the machine has it. */
const mostBytes = Math.min(192 * 1024 * 1024, totalmem() / 16)

/**
 * Documents by id that are already rendered, so that who asks for the same one again costs no query. One is dropped at
 * the commit that changes its resource, before the caller of that change is answered; the oldest go when there are too
 * many. It is for documents that show nothing but their own resource's row, and holds nothing when other processes may
 * write to the database, whose commits are not heard of here (docs/decisions/0022).
 */
export class DocumentCache {
  readonly #documents: DocumentBlocks
  readonly #enabled: boolean
  #commits = 0

  constructor(store: Store, limitBytes = mostBytes) {
    this.#documents = new DocumentBlocks(limitBytes)
    this.#enabled = store.engine === 'sqlite'
    if (!this.#enabled) return
    store.onChange((ids) => {
      this.#commits++
      for (const id of ids) this.#documents.delete(id)
    })
  }

  /** Whether anything is kept. */
  get enabled(): boolean {
    return this.#enabled
  }

  /** The document if it is kept, or what `render` makes of what it reads; errors of `render` are passed on. */
  async get(id: string, render: (id: string) => Promise<RenderedDocument>): Promise<RenderedDocument> {
    const kept = this.#documents.get(id)
    if (kept !== null) return kept
    const commits = this.#commits
    const document = await render(id)
    // what was read before a commit may be older than it
    if (this.#enabled && commits === this.#commits) this.#documents.set(document)
    return document
  }

  /**
   * The documents of a list, all of one moment: they say what made `listIds` list them. Neither it nor `render` may wait
   * for anything but the database. Only for a cache that is enabled.
   */
  async list(
    listIds: () => Promise<readonly string[]>,
    render: (id: string) => Promise<RenderedDocument>,
  ): Promise<RenderedDocument[]> {
    // SQLite answers at once, so a commit is heard of here, and this list is made, in the turn of the event loop that
    // each began in: in a turn of its own no commit comes in between, and none is done that was not heard of yet
    await new Promise((resolve) => setImmediate(resolve))
    const documents: RenderedDocument[] = []
    for (const id of await listIds()) documents.push(await this.get(id, render))
    return documents
  }
}
