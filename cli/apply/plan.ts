import { isDeepStrictEqual } from 'node:util'
import { parseChecksum, pathOf, sha256Of } from '@berth/contract/images/checksum.ts'
import { keyParts } from '@berth/contract/instances/public-key-text.ts'
import { CliError, exitCodes } from '../exit-codes.ts'
import type { Session } from '../session.ts'
import { isRecord } from './declared-document.ts'
import { type Declared, type Kind, kinds } from './file.ts'
import { kindCalls, type Live, livingInstancesNamed, type Patch } from './live-resources.ts'

/** One line of a plan. `impossible` is a change that the API does not have. */
export type Step = {
  kind: Kind
  /** What people know it by. */
  key: string
  /** "" while there is none. */
  id: string
  /** What is different, for people. */
  changes: string[]
} & (
  | { action: 'create'; declared: Declared }
  | { action: 'update'; declared: Declared; patch: Patch; etag: string }
  | { action: 'unchanged' | 'impossible' | 'delete' }
)

/** What it takes to make things as they are declared; with a selector, also to remove what it matches besides. */
export async function makePlan(
  session: Session,
  declared: readonly Declared[],
  pruneSelector: string | null,
): Promise<Step[]> {
  const steps: Step[] = []
  for (const one of declared) steps.push(await planOne(session, one))
  // among one kind, what is new comes first: a changed security group may name a new one
  steps.sort((a, b) => kinds.indexOf(a.kind) - kinds.indexOf(b.kind) || Number(isNew(b)) - Number(isNew(a)))
  if (pruneSelector !== null) steps.push(...(await planRemovals(session, steps, pruneSelector)))
  return steps
}

function isNew({ action }: Step): boolean {
  return action === 'create'
}

async function planOne(session: Session, declared: Declared): Promise<Step> {
  const { kind, key } = declared
  const found = await findLive(session, declared)
  if (found === null) return { action: 'create', kind, key, id: declared.body.id ?? '', changes: [], declared }
  const { live, etag } = found
  const about = { kind, key, id: live.id }
  const impossible = fixedDifferences(declared, live)
  if (impossible.length > 0) return { action: 'impossible', ...about, changes: impossible }
  const { patch, changes } = differences(declared, live)
  if (changes.length === 0) return { action: 'unchanged', ...about, changes }
  return { action: 'update', ...about, changes, declared, patch, etag }
}

/** What is there for a declaration, with its version, or null. Throws CliError (conflict) when it is not clear which. */
async function findLive(session: Session, { kind, key }: Declared): Promise<{ live: Live; etag: string } | null> {
  const id = kind === 'Instance' ? await instanceIdOf(session, key) : key
  if (id === null) return null
  try {
    const { data: live, response } = await kindCalls[kind].get(session, id)
    return { live, etag: response.headers.get('etag') ?? '*' }
  } catch (error) {
    if (error instanceof CliError && error.exitCode === exitCodes.notFound) return null
    throw error
  }
}

async function instanceIdOf(session: Session, name: string): Promise<string | null> {
  const [first, ...others] = await livingInstancesNamed(session, name)
  if (first === undefined) return null
  if (others.length === 0) return first.id
  throw new CliError(
    exitCodes.conflict,
    `${others.length + 1} instances are named ${name}; a declared instance needs a name of its own`,
    { details: [first, ...others].map(({ id }) => id) },
  )
}

/** Declared values that differ where a PATCH takes none. What is not declared is left as it is. */
function fixedDifferences({ kind, body }: Declared, live: Live): string[] {
  const { changeable } = kindCalls[kind]
  return Object.entries(body.spec)
    .filter(([field]) => !changeable.includes(field))
    .flatMap(([field, value]) =>
      difference(`spec.${field}`, Reflect.get(live.spec, field), asShown(kind, field, value, body.spec)),
    )
}

/** A declared value in the form in which documents show it: a public key and a checksum can be written in many. */
function asShown(kind: Kind, field: string, value: unknown, spec: Readonly<Record<string, unknown>>): unknown {
  if (typeof value !== 'string') return value
  if (kind === 'SshKey' && field === 'public_key') return keyParts(value).line
  if (kind !== 'Image' || (field !== 'sha256' && field !== 'checksum')) return value
  const { source_url: url } = spec
  if (typeof url !== 'string' || !URL.canParse(url)) return value
  const parsed = parseChecksum(value, pathOf(url))
  if ('fault' in parsed) return value
  return field === 'sha256' ? sha256Of(parsed.checksum) : parsed.checksum
}

function differences({ kind, body }: Declared, live: Live): { patch: Patch; changes: string[] } {
  const changes: string[] = []
  const metadata: NonNullable<Patch['metadata']> = {}
  const { name, labels } = body.metadata
  if (name !== undefined && name !== live.metadata.name) {
    metadata.name = name
    changes.push(...difference('metadata.name', live.metadata.name, name))
  }
  if (labels !== undefined) {
    const patched = patchedLabels(live.metadata.labels, labels)
    for (const [key, value] of Object.entries(patched)) {
      const before = Object.hasOwn(live.metadata.labels, key) ? live.metadata.labels[key] : undefined
      changes.push(`labels.${key}: ${shown(before)} -> ${shown(value ?? undefined)}`)
    }
    if (Object.keys(patched).length > 0) metadata.labels = patched
  }
  const spec: Record<string, unknown> = {}
  for (const field of kindCalls[kind].changeable) {
    if (!Object.hasOwn(body.spec, field)) continue
    const found = difference(`spec.${field}`, Reflect.get(live.spec, field), body.spec[field])
    if (found.length > 0) spec[field] = body.spec[field]
    changes.push(...found)
  }
  const patch = {
    ...(Object.keys(metadata).length === 0 ? {} : { metadata }),
    ...(Object.keys(spec).length === 0 ? {} : { spec }),
  }
  return { patch, changes }
}

/** Declared labels are all the labels: others are removed. */
function patchedLabels(before: Record<string, string>, after: Record<string, string>): Record<string, string | null> {
  const removed = Object.keys(before).filter((key) => !Object.hasOwn(after, key))
  const set = Object.entries(after).filter(([key, value]) => !Object.hasOwn(before, key) || before[key] !== value)
  return { ...Object.fromEntries(removed.map((key) => [key, null])), ...Object.fromEntries(set) }
}

function difference(field: string, before: unknown, after: unknown): string[] {
  return isDeepStrictEqual(normal(before), normal(after)) ? [] : [`${field}: ${shown(before)} -> ${shown(after)}`]
}

/**
 * Lists of ids are sets, a text may end with a line end, and a rule with one port may name it once or twice and have no
 * description.
 */
function normal(value: unknown): unknown {
  if (typeof value === 'string') return value.trim()
  if (!Array.isArray(value)) return value
  if (value.every((item) => typeof item === 'string')) return [...value].sort()
  return value.map((item: unknown) => {
    if (!isRecord(item)) return item
    const described = { ...item, description: item.description ?? '' }
    return item.port_from === undefined ? described : { ...described, port_to: item.port_to ?? item.port_from }
  })
}

const longestShown = 60

function shown(value: unknown): string {
  if (value === undefined) return '(none)'
  const text = typeof value === 'string' && value !== '' ? value : (JSON.stringify(value) ?? '')
  return text.length > longestShown ? `${text.slice(0, longestShown)}…` : text
}

/** What a selector matches and nobody declares, the users of a thing before the thing. */
async function planRemovals(session: Session, steps: readonly Step[], selector: string): Promise<Step[]> {
  const kept = new Set(steps.map(({ id }) => id))
  const removals: Step[] = []
  for (const kind of [...kinds].reverse()) {
    for (const { id, metadata } of await kindCalls[kind].list(session, selector)) {
      const key = kind === 'Instance' ? metadata.name : id
      if (!kept.has(id)) removals.push({ action: 'delete', kind, key, id, changes: [] })
    }
  }
  return removals
}
