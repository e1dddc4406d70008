import { parseLabelSelector } from '@berth/contract/label-selector.ts'
import type { Command } from 'commander'
import { CliError, exitCodes } from '../exit-codes.ts'
import type { CliIo } from '../io.ts'
import { Patience, waitForInstance, waitForOperation } from '../live/follow.ts'
import { type OutputFlags, print } from '../output/output.ts'
import { renderTable } from '../output/table.ts'
import { call, openSession, type Session } from '../session.ts'
import { inTermsOfFile, isRecord } from './declared-document.ts'
import { readDeclaredFile } from './declared-file.ts'
import { type Declared, parseDeclarations } from './file.ts'
import type { ApplyFlags } from './flags.ts'
import { kindCalls, type Live } from './live-resources.ts'
import { makePlan, type Step } from './plan.ts'

/** What became of one declared resource, or would become of it. */
interface Result {
  result: 'created' | 'updated' | 'deleted' | 'failed' | 'not done' | Step['action']
  kind: Step['kind']
  key: string
  id: string
  changes: string[]
}

/** Make things as the files of the flags declare them. Throws CliError. */
export async function apply(io: CliIo, flags: ApplyFlags, self: Command): Promise<void> {
  const selector = pruneSelector(flags)
  const documents = []
  for (const file of flags.file) documents.push(...(await readDeclaredFile(io, file)))
  const declared = parseDeclarations(documents)
  if (declared.length === 0) throw new CliError(exitCodes.usage, 'nothing is declared')
  const session = openSession(io, self)
  const plan = await makePlan(session, declared, selector)
  const impossible = plan.filter(({ action }) => action === 'impossible')
  if (flags.dryRun || impossible.length > 0) printResults(io, flags, plan.map(planned))
  if (impossible.length > 0) throw cannotChange(impossible)
  if (!flags.dryRun) await carryOut(session, plan, flags)
}

function pruneSelector({ prune, selector }: ApplyFlags): string | null {
  const empty = selector === undefined || selector.trim() === ''
  if (prune && empty) throw new CliError(exitCodes.usage, '--prune needs --selector: it says what may be deleted')
  if (!prune && selector !== undefined) throw new CliError(exitCodes.usage, '--selector is for --prune')
  if (!prune || empty) return null
  // one that only says what labels are not there matches whatever nobody has labelled
  if (!parseLabelSelector(selector).some(({ operator }) => operator === 'in' || operator === 'exists')) {
    throw new CliError(exitCodes.usage, 'the selector of --prune must name a label that is there, as app=shop')
  }
  return selector
}

function cannotChange(steps: readonly Step[]): CliError {
  const what = steps.map(({ kind, key }) => `${kind} ${key}`).join(', ')
  return new CliError(exitCodes.conflict, `nothing was done: what is declared of ${what} cannot be changed`, {
    details: ['declare what is there, or delete the resource first'],
  })
}

/** Carry a plan out, in its order, and print what became of it, also when it stops in the middle. */
async function carryOut(session: Session, plan: readonly Step[], flags: ApplyFlags): Promise<void> {
  const { io } = session
  io.stderr.write(`${summary(plan)}\n`)
  const results: Result[] = []
  const patience = new Patience(session, flags.timeout)
  const created: NewResource[] = []
  try {
    const late = new LateRules(plan)
    await untie(session, plan)
    for (const step of plan) {
      const result = await carryOutStep(session, step, { late, patience, created })
      await late.settle(session, step)
      results.push(result)
    }
    await waitForNew(session, created, flags, patience)
  } finally {
    const [failed, ...others] = plan.slice(results.length)
    if (failed !== undefined) results.push({ ...planned(failed), result: 'failed' })
    results.push(...others.map((step) => ({ ...planned(step), result: 'not done' as const })))
    printResults(io, flags, results)
  }
}

/** Take the rules out of groups that are deleted: they may name each other, and what is named is in use. */
async function untie(session: Session, plan: readonly Step[]): Promise<void> {
  const groups = plan.filter(({ action, kind }) => action === 'delete' && kind === 'SecurityGroup')
  if (groups.length < 2) return
  for (const { id } of groups) await kindCalls.SecurityGroup.patch(session, id, { spec: { rules: [] } }, {})
}

interface NewResource {
  live: Live
  step: Step
}

interface Progress {
  late: LateRules
  patience: Patience
  created: NewResource[]
}

async function carryOutStep(session: Session, step: Step, progress: Progress): Promise<Result> {
  const { kind, id } = step
  switch (step.action) {
    case 'create': {
      const body = progress.late.bodyOf(step.declared)
      const live = await inFile(step.declared, () => kindCalls[kind].create(session, body))
      progress.created.push({ live, step })
      return { ...planned(step), result: 'created', id: live.id }
    }
    case 'update': {
      const { patch, declared, etag } = step
      await inFile(declared, () => kindCalls[kind].patch(session, id, patch, { 'if-match': etag }))
      return { ...planned(step), result: 'updated' }
    }
    case 'delete': {
      const operation = await kindCalls[kind].remove(session, id)
      if (operation !== null) await waitForOperation(session, operation, progress.patience)
      return { ...planned(step), result: 'deleted' }
    }
    default:
      return planned(step)
  }
}

/** `2 to create, 1 to update, 3 unchanged, 0 to delete` */
function summary(plan: readonly Step[]): string {
  const count = (action: Step['action']) => plan.filter((step) => step.action === action).length
  const [create, update, unchanged, remove] = [count('create'), count('update'), count('unchanged'), count('delete')]
  return `${create} to create, ${update} to update, ${unchanged} unchanged, ${remove} to delete`
}

/**
 * Security groups may name each other in their rules. A group is made without the rules that name one that is not there
 * yet; they follow when the last of the groups is made.
 */
class LateRules {
  readonly #missing: Set<string>
  readonly #late: { id: string; rules: unknown; declared: Declared }[] = []

  constructor(plan: readonly Step[]) {
    this.#missing = new Set(groupsToMake(plan))
  }

  bodyOf(declared: Declared): Declared['body'] {
    const { body, kind, key } = declared
    const { rules } = body.spec
    this.#missing.delete(key)
    if (kind !== 'SecurityGroup' || !Array.isArray(rules)) return body
    const now = rules.filter((rule: unknown) => !this.#isMissing(rule))
    if (now.length === rules.length) return body
    this.#late.push({ id: key, rules, declared })
    return { ...body, spec: { ...body.spec, rules: now } }
  }

  async settle(session: Session, { kind }: Step): Promise<void> {
    if (kind !== 'SecurityGroup' || this.#missing.size > 0) return
    for (const { id, rules, declared } of this.#late.splice(0)) {
      await inFile(declared, () => kindCalls.SecurityGroup.patch(session, id, { spec: { rules } }, {}))
    }
  }

  #isMissing(rule: unknown): boolean {
    const remote = isRecord(rule) ? rule.remote : null
    const group = isRecord(remote) ? remote.security_group : null
    return typeof group === 'string' && this.#missing.has(group)
  }
}

function groupsToMake(plan: readonly Step[]): string[] {
  return plan.flatMap(({ action, kind, key }) => (action === 'create' && kind === 'SecurityGroup' ? [key] : []))
}

/** Do something for a declaration; what the server refuses is told with the line of the file. */
async function inFile<T>(declared: Declared, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw inTermsOfFile(error, declared.document, declared.body)
  }
}

async function waitForNew(
  session: Session,
  created: readonly NewResource[],
  { wait }: ApplyFlags,
  patience: Patience,
): Promise<void> {
  if (wait === false || wait === 'none') return
  for (const { live, step } of created) {
    if (step.kind !== 'Instance') continue
    const operation: unknown = Reflect.get(live, 'operation_id')
    if (typeof operation !== 'string') continue
    session.io.stderr.write(`waiting for ${step.key} (${live.id})\n`)
    await waitForOperation(session, operation, patience)
    if (wait !== 'ready') continue
    const params = { path: { id: live.id } }
    const instance = await call(session, session.client.GET('/v1/instances/{id}', { params }))
    await waitForInstance(session, instance, 'ready', patience)
  }
}

function planned({ action, kind, key, id, changes }: Step): Result {
  return { result: action, kind, key, id, changes }
}

const columns = [
  { header: 'RESULT', cell: ({ result }: Result) => result },
  { header: 'KIND', cell: ({ kind }: Result) => kind },
  { header: 'NAME', cell: ({ key }: Result) => key },
  { header: 'ID', cell: ({ id }: Result) => id },
  { header: 'CHANGES', cell: ({ changes }: Result) => changes.join('; ') },
]

function printResults(io: CliIo, flags: OutputFlags, results: readonly Result[]): void {
  print(io, flags, { items: results }, () => renderTable(columns, results))
}
