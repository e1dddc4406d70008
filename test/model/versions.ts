import { isDeepStrictEqual } from 'node:util'
import type { Instance, InstancePatch } from '@berth/contract/instances/instances.ts'
import type { InstanceNow } from './tables.ts'

/** What a PATCH can change. */
interface Described {
  name: string
  labels: Record<string, string>
  security_groups: string[]
}

/** An instance as a client was shown it. */
export interface Shown {
  instance: Pick<Instance, 'metadata' | 'spec'>
  etag: string
}

/** A change, or a look, which changes nothing. `shown` is null when its answer got lost: it may have been made. */
interface Attempt {
  change: InstancePatch
  ifMatch: string | null
  shown: Shown | null
}

/** A version: labels have their own count beside the generation, which only a change of name or groups raises here. */
interface Version {
  generation: number
  revision: number
}

/** Where an order of changes leads to. */
interface State extends Version {
  described: Described
  /** Which version each ETag that was seen names. */
  tags: ReadonlyMap<string, Version>
  /** Generations that a change of name or groups has made. */
  byPatch: readonly number[]
}

/**
 * The versions of one instance. What clients were answered since the last rest must fit in some order: each answer shows
 * the version before it with the change, each If-Match that was taken names that version, and one that was refused
 * names none that still is.
 */
export class Versions {
  #state: State | null = null
  #attempts: Attempt[] = []
  #old: string[] = []

  /** The first ETag that was seen of the instance, or one that it never had. */
  get firstEtag(): string {
    return [...(this.#state?.tags.keys() ?? [])][0] ?? '"0-0"'
  }

  /** Whether a client has heard anything since the last rest. */
  get isUnchecked(): boolean {
    return this.#attempts.length + this.#old.length > 0
  }

  /** Whether a change of name or groups is known to have made a generation. */
  isByPatch(generation: number): boolean {
    return this.#state?.byPatch.includes(generation) === true
  }

  /** It was made. */
  begin(metadata: { name: string; labels: Record<string, string> }, groups: readonly string[]): void {
    const described = { name: metadata.name, labels: metadata.labels, security_groups: [...groups] }
    this.#state ??= { described, generation: 1, revision: 0, tags: new Map(), byPatch: [] }
  }

  /** A change or a look was answered with a version, or its answer got lost. */
  attempted(attempt: Attempt): void {
    this.#attempts.push(attempt)
  }

  /** A change was refused because its If-Match named another version. */
  refusedAsOld(etag: string): void {
    this.#old.push(etag)
  }

  /**
   * All is at rest, and this is what is stored; `isQuiet` says that nothing but such changes can have raised the
   * generation since the last time. Gives what does not fit, or null.
   */
  settle(now: InstanceNow, isQuiet: boolean): string | null {
    const described = describedOf(now)
    const before = this.#state ?? { described, generation: 1, revision: 0, tags: new Map(), byPatch: [] }
    const attempts = this.#attempts
    const old = this.#old
    this.#attempts = []
    this.#old = []
    const isEnd = (state: State) =>
      isDeepStrictEqual(state.described, described) &&
      (isQuiet ? now.generation === state.generation : now.generation >= state.generation) &&
      !old.some((etag) => isVersion(state.tags.get(etag), { ...state, generation: now.generation }))
    const end = findOrder(before, attempts, { isEnd, isQuiet })
    if (end !== null) {
      this.#state = { ...end, generation: now.generation }
      return null
    }
    const { tags, ...from } = before
    const answers = attempts.map(({ change, ifMatch, shown }) => JSON.stringify({ change, ifMatch, shown }))
    return [
      `came from ${JSON.stringify(from)} to ${JSON.stringify({ described, generation: now.generation })}`,
      `refused as old: ${old}; known: ${JSON.stringify([...tags])}; answers that fit in no order:`,
      ...answers,
    ].join('\n')
  }
}

/** An order of the attempts that leads to the end; those without an answer may be left out. */
function findOrder(
  state: State,
  attempts: readonly Attempt[],
  goal: { isEnd: (state: State) => boolean; isQuiet: boolean },
): State | null {
  if (attempts.every(({ shown }) => shown === null) && goal.isEnd(state)) return state
  for (const attempt of attempts) {
    const next = follow(state, attempt, goal.isQuiet)
    if (next === null) continue
    const rest = attempts.filter((other) => other !== attempt)
    const end = findOrder(next, rest, goal)
    if (end !== null) return end
  }
  return null
}

/** The state after an attempt, or null when it cannot be the next one. */
function follow(before: State, { change, ifMatch, shown }: Attempt, isQuiet: boolean): State | null {
  const described = patched(before.described, change)
  const changesLabels = !isDeepStrictEqual(described.labels, before.described.labels)
  const changesIntent = !isDeepStrictEqual({ ...described, labels: before.described.labels }, before.described)
  const revision = before.revision + (changesLabels ? 1 : 0)
  const raised = changesIntent ? 1 : 0
  const generation = shown === null ? before.generation + raised : shown.instance.metadata.generation
  if (generation < before.generation + raised || (isQuiet && generation !== before.generation + raised)) return null
  if (ifMatch !== null && !isVersion(before.tags.get(ifMatch), { ...before, generation: generation - raised }))
    return null
  const byPatch = changesIntent && shown !== null ? [...before.byPatch, generation] : before.byPatch
  const after = { described, generation, revision, byPatch, tags: before.tags }
  if (shown === null) return after
  const { metadata, spec } = shown.instance
  if (!isDeepStrictEqual(described, describedOf({ ...metadata, security_groups: spec.security_groups }))) return null
  const tags = tagged(before.tags, shown.etag, { generation, revision })
  return tags === null ? null : { ...after, tags }
}

/** The tags with one more; null when a tag would name two versions, or a version have two. */
function tagged(tags: State['tags'], etag: string, version: Version): State['tags'] | null {
  for (const [known, of] of tags) if ((known === etag) !== isVersion(of, version)) return null
  return tags.has(etag) ? tags : new Map([...tags, [etag, version]])
}

function isVersion(a: Version | undefined, b: Version): boolean {
  return a !== undefined && a.generation === b.generation && a.revision === b.revision
}

/** RFC 7396 for what a PATCH may hold. */
function patched(before: Described, { metadata, spec }: InstancePatch): Described {
  const labels = Object.entries({ ...before.labels, ...metadata?.labels })
  return {
    name: metadata?.name ?? before.name,
    labels: Object.fromEntries(labels.filter((label): label is [string, string] => label[1] !== null)),
    security_groups: spec?.security_groups ?? before.security_groups,
  }
}

function describedOf({ name, labels, security_groups }: Described): Described {
  return { name, labels, security_groups }
}
