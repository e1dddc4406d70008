import { isDeepStrictEqual } from 'node:util'
import type { PolicyGroup } from '@berth/contract/networks/policy.ts'
import { type Abortable, CommandError } from '../../sys/run-command.ts'
import { checkRuleset, listRuleNames, loadRuleset } from '../namespace.ts'
import { writtenFaults } from './faults.ts'
import { ExpectedListing, type Listing } from './listing.ts'
import { findRefusals, ruleKey, withoutRules } from './refusals.ts'
import { type Ruleset, type RulesetPlan, rulesetOf } from './ruleset.ts'
import { renderChange, renderRuleset, withoutTables } from './text.ts'

/**
 * The rules of one VPC's namespace: what is loaded, as far as is known, and what it is changed to. A rule of a group that
 * cannot be loaded is left out, and lets nothing pass; all others are in force.
 */
export class NamespaceRules {
  /** What was loaded last; null when the kernel may have anything. */
  #loaded: Ruleset | null = null
  /** Nothing at all is loaded. */
  #empty = false
  /** Rules that the kernel refuses, by their keys, with what was said of them. */
  #refused: ReadonlyMap<string, string> = new Map()
  /** Why the last load came to nothing. */
  #failure: string | null = null
  readonly #expected = new ExpectedListing('vpc')
  readonly #onFaults: () => void

  /** `onFaults` is called when what `faultsOf` gives has changed by a load. */
  constructor(onFaults: () => void = () => {}) {
    this.#onFaults = onFaults
  }

  /** Whether a plan asks for other rules than were loaded. */
  differFrom(plan: RulesetPlan): boolean {
    return this.#loaded === null || renderChange(this.#loaded, rulesetOf(this.loadable(plan))) !== ''
  }

  /** Take nothing for known: the next load is whole. */
  forget(): void {
    this.#loaded = null
    this.#empty = false
  }

  /** The namespace was made just now: there are no rules in it. */
  beginEmpty(): void {
    this.#loaded = null
    this.#empty = true
  }

  /** A plan without the rules that the kernel is known to refuse. */
  loadable(plan: RulesetPlan): RulesetPlan {
    return { ...plan, groups: withoutRules(plan.groups, this.#refused) }
  }

  /** What keeps the rules of a group from being in force, in words; nothing when they are. */
  faultsOf(group: PolicyGroup): readonly string[] {
    if (this.#failure !== null) return [this.#failure]
    const written = writtenFaults(group)
    if (this.#refused.size === 0) return written
    const refused = group.rules.flatMap((rule, index) => {
      const why = this.#refused.get(ruleKey(rule))
      return why === undefined ? [] : [`rule ${index}: ${why}`]
    })
    return [...written, ...refused]
  }

  /**
   * Have the rules of a plan in force, but for those that the kernel refuses: by what is otherwise than was loaded, or whole,
   * over what is there, where that is not known or turns out to be something else.
   */
  async apply(namespace: string, plan: RulesetPlan, options: Abortable): Promise<void> {
    await this.#leavingOut(namespace, plan, options, (loadable) => this.#change(namespace, loadable, options))
  }

  /** Load the rules of a plan in place of our tables, whatever is in them, as one transaction. */
  async replace(namespace: string, plan: RulesetPlan, options: Abortable): Promise<void> {
    this.forget()
    await this.#leavingOut(namespace, plan, options, async (loadable) => {
      const wanted = rulesetOf(loadable)
      await loadRuleset(namespace, withoutTables + renderRuleset(wanted), options)
      this.#loaded = wanted
    })
  }

  /** A look has found what the kernel has to be what `expected` gives, whatever became of the last load. */
  foundInForce(): void {
    this.#note(this.#refused, null)
  }

  /** Look whether the rules that the kernel refused are still refused, and have in force what is not. */
  async reconsider(namespace: string, plan: RulesetPlan, options: Abortable): Promise<void> {
    if (this.#refused.size === 0) return
    const refused = await this.#refusals(namespace, plan, options)
    await this.#leavingOut(namespace, plan, options, (loadable) => this.#change(namespace, loadable, options), refused)
  }

  /** What the kernel lists of the rules of a plan when they are as they should be. */
  expected(plan: RulesetPlan, options: Abortable): Promise<Listing> {
    return this.#expected.of(renderRuleset(rulesetOf(this.loadable(plan))), options)
  }

  /** Load a plan without the rules that are `refused`; when that is refused again, find out for which, and load the others. */
  async #leavingOut(
    namespace: string,
    plan: RulesetPlan,
    options: Abortable,
    load: (plan: RulesetPlan) => Promise<void>,
    refused = this.#refused,
  ): Promise<void> {
    const rest = { ...plan, groups: withoutRules(plan.groups, refused) }
    try {
      await load(rest)
      this.#note(onlyOf(plan, refused), null)
    } catch (error) {
      if (options.signal?.aborted) throw error
      const found = isRefusal(error) ? await this.#refusals(namespace, rest, options) : new Map()
      if (found.size === 0) {
        this.#note(this.#refused, isRefusal(error) ? refusalOf(error) : messageOf(error))
        throw error
      }
      await this.#leavingOut(namespace, plan, options, load, new Map([...refused, ...found]))
    }
  }

  #refusals(namespace: string, plan: RulesetPlan, options: Abortable): Promise<Map<string, string>> {
    return findRefusals(plan.groups, (groups) => {
      const ruleset = withoutTables + renderRuleset(rulesetOf({ ...plan, groups }))
      return checkRuleset(namespace, ruleset, options).then(() => null, refusalOf)
    })
  }

  #note(refused: ReadonlyMap<string, string>, failure: string | null): void {
    const same = failure === this.#failure && isDeepStrictEqual(refused, this.#refused)
    this.#refused = refused
    this.#failure = failure
    if (!same) this.#onFaults()
  }

  async #change(namespace: string, plan: RulesetPlan, options: Abortable): Promise<void> {
    const wanted = rulesetOf(plan)
    const loaded = this.#loaded
    if (loaded !== null) {
      const change = renderChange(loaded, wanted)
      if (change === '') return
      this.#loaded = null // until it is known to be in force
      const failed = await loadRuleset(namespace, change, options).catch((error: unknown) => error)
      if (failed === undefined) {
        this.#loaded = wanted
        return
      }
      if (options.signal?.aborted) throw failed
    }
    const stale = this.#empty ? undefined : await listRuleNames(namespace, options)
    this.#empty = false
    await loadRuleset(namespace, renderRuleset(wanted, stale), options)
    this.#loaded = wanted
  }
}

/** Of refused rules those that a plan still has. */
function onlyOf({ groups }: RulesetPlan, refused: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  if (refused.size === 0) return refused
  const keys = new Set(groups.flatMap(({ rules }) => rules.map(ruleKey)))
  return new Map([...refused].filter(([key]) => keys.has(key)))
}

/** Whether the command itself said no, in contrast to one that was ended or could not be started. */
function isRefusal(error: unknown): error is CommandError {
  return error instanceof CommandError && error.exitCode !== null
}

/** What was said of it; the first line has the place and the reason. Throws what is no refusal. */
function refusalOf(error: unknown): string {
  if (!isRefusal(error)) throw error
  const [line = ''] = error.stderrTail.split('\n')
  return `it cannot be loaded: ${line.replace(/^(?:\S+:\d+:[\d-]+: )?(?:Error: )?/, '').slice(0, 300)}`
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
