import type { Answer } from './api.ts'
import { Refused } from './client.ts'
import type { Post } from './posts.ts'
import { settings } from './server-process.ts'

/** A request that a key is bound to, or may be. */
interface Binding {
  request: string
  atMs: number
  /** The first answer, null while nobody has got it. */
  answer: string | null
  /** The instance that it made, as far as that is known by its name. */
  instance: string | null
  /** Whether what is known comes from more than a repetition whose first request is still under way. */
  isSettled: boolean
}

/** A request with a key that is under way. */
export interface Attempt {
  key: string
  request: string
  asks: Post['asks']
  atMs: number
  /** Whether its key is bound for certain when it begins. */
  wasBound: boolean
  /** What may have been bound by requests before it. */
  before: readonly Binding[]
}

interface Key {
  binding: Binding | null
  /** Requests that broke before they were answered. */
  perhaps: (Binding & { asks: Post['asks'] })[]
  open: Set<Attempt>
}

/**
 * What an Idempotency-Key promises, by the answers alone: the first answer again for 24 hours, nothing else for another
 * request, and nothing for one that was refused.
 */
export class Keys {
  /** Every request that was sent with a key, oldest first. */
  readonly sent: Post[] = []
  readonly #keys = new Map<string, Key>()
  readonly #violation: (what: string) => void
  readonly #now: () => number
  /** Latest time by the server's clock: what was too old once may have been removed. */
  #latestMs = 0

  constructor(violation: (what: string) => void, now: () => number) {
    this.#violation = violation
    this.#now = now
  }

  /** A key that nobody has used. */
  make(): string {
    return `key-${this.#keys.size + 1}`
  }

  /** A request with a key is sent. */
  begin(key: string, post: Post): Attempt {
    const known: Key = this.#keys.get(key) ?? { binding: null, perhaps: [], open: new Set() }
    if (!this.#keys.has(key)) {
      this.#keys.set(key, known)
      this.sent.push(post)
    }
    const attempt: Attempt = {
      key,
      request: JSON.stringify(post),
      asks: post.asks,
      atMs: this.#now(),
      wasBound: known.binding?.isSettled === true && this.#standing(known.binding) === 'bound',
      before: [...known.perhaps],
    }
    known.open.add(attempt)
    return attempt
  }

  /** It was accepted. Gives whether it was carried out now, and not answered as the first one was. */
  answered(attempt: Attempt, answer: Answer): boolean {
    const known = this.#close(attempt)
    const said = JSON.stringify([answer.status, answer.headers.location, answer.text])
    return answer.headers['idempotency-replayed'] === 'true'
      ? this.#replayed(known, attempt, said)
      : this.#carriedOut(known, attempt, said)
  }

  /** It was refused. */
  refused(attempt: Attempt, error: unknown): void {
    const known = this.#close(attempt)
    const { binding } = known
    if (error instanceof Refused && error.code === 'idempotency_key_reused') {
      const others = [...(binding === null ? [] : [binding]), ...known.perhaps].filter(
        (b) => this.#standing(b) !== 'free',
      )
      const isOther = ({ request }: { request: string }) => request !== attempt.request
      if (!others.some(isOther) && ![...known.open].some(isOther))
        this.#violation(`${attempt.key} is bound to nothing else and was said to be reused by ${attempt.request}`)
      return
    }
    if (attempt.wasBound) this.#violation(`${attempt.key} is bound, and ${attempt.request} was judged anew`)
    known.perhaps = known.perhaps.filter((binding) => !attempt.before.includes(binding))
  }

  /** Its connection broke. */
  broke(attempt: Attempt): void {
    const { request, asks, atMs } = attempt
    this.#close(attempt).perhaps.push({ request, asks, atMs, answer: null, instance: null, isSettled: true })
  }

  /**
   * An instance was found that nobody was answered with. Gives whether a request with the key of its name has made it:
   * one that a repetition was told of, or one that broke.
   */
  made({ id, name, type }: { id: string; name: string; type: string }): boolean {
    const known = this.#keys.get(name)
    if (known === undefined) return false
    const { binding } = known
    if (binding?.answer != null && madeBy(binding.answer) === id) {
      known.binding = { ...binding, instance: id, isSettled: true }
      return true
    }
    const broken = known.perhaps.find(({ asks, request }) => asks === 'create' && request.includes(`"${type}"`))
    const isBound = binding?.isSettled === true && this.#standing(binding) === 'bound'
    if (broken === undefined || isBound) return false
    known.binding = { ...broken, instance: id }
    return true
  }

  /** All is at rest: a create that made no instance has bound nothing. */
  settled(): void {
    this.#latestMs = Math.max(this.#latestMs, this.#now())
    for (const known of this.#keys.values()) known.perhaps = known.perhaps.filter(({ asks }) => asks !== 'create')
  }

  #close(attempt: Attempt): Key {
    const known = this.#keys.get(attempt.key)
    if (known === undefined) throw new Error(`${attempt.key} is not known`)
    known.open.delete(attempt)
    return known
  }

  #replayed(known: Key, attempt: Attempt, said: string): false {
    const fits = (binding: Binding) => binding.request === attempt.request && this.#standing(binding) !== 'free'
    const { binding } = known
    if (binding !== null && fits(binding)) {
      const isOther = binding.answer !== null && binding.answer !== said
      if (isOther || (binding.instance !== null && madeBy(said) !== binding.instance))
        this.#violation(`${attempt.key} was answered with ${said}, first with ${binding.answer ?? binding.instance}`)
      binding.answer = said
      return false
    }
    const broken = known.perhaps.find(fits)
    const other = [...known.open].find(({ request }) => request === attempt.request)
    const first = broken ?? other
    if (first === undefined)
      this.#violation(`${attempt.key} is bound to nothing such, and ${attempt.request} was answered with ${said}`)
    const atMs = first?.atMs ?? attempt.atMs
    const isSettled = broken !== undefined
    known.binding = { request: attempt.request, atMs, answer: said, instance: null, isSettled }
    return false
  }

  #carriedOut(known: Key, attempt: Attempt, said: string): true {
    const { key, request, atMs } = attempt
    const { binding } = known
    const isFree = binding === null || this.#standing(binding) !== 'bound'
    const isFirst = binding?.isSettled === false && binding.request === request && binding.answer === said
    if (attempt.wasBound || !(isFree || isFirst))
      this.#violation(`${key} is bound to ${binding?.request}, and ${request} was carried out`)
    known.binding = { request, atMs, answer: said, instance: null, isSettled: true }
    known.perhaps = []
    return true
  }

  /** Whether a binding still counts: `maybe` when the clock was set back since it was too old. */
  #standing({ atMs }: { atMs: number }): 'bound' | 'maybe' | 'free' {
    const now = this.#now()
    if (now - atMs > settings.idempotencyKeyMs) return 'free'
    return Math.max(now, this.#latestMs) - atMs > settings.idempotencyKeyMs ? 'maybe' : 'bound'
  }
}

/** The instance that an answer to a create names. */
function madeBy(said: string): string {
  return JSON.parse(JSON.parse(said)[2]).id
}
