import type { Abortable } from '../../sys/run-command.ts'
import { listRuleNames, loadRuleset } from '../namespace.ts'
import { ExpectedListing, type Listing } from './listing.ts'
import { type Ruleset, type RulesetPlan, rulesetOf } from './ruleset.ts'
import { renderChange, renderRuleset, withoutTables } from './text.ts'

/** The rules of one VPC's namespace: what is loaded, as far as is known, and what it is changed to. */
export class NamespaceRules {
  /** What was loaded last; null when the kernel may have anything. */
  #loaded: Ruleset | null = null
  /** Nothing at all is loaded. */
  #empty = false
  readonly #expected = new ExpectedListing('vpc')

  /** Whether a plan asks for other rules than were loaded. */
  differFrom(plan: RulesetPlan): boolean {
    return this.#loaded === null || renderChange(this.#loaded, rulesetOf(plan)) !== ''
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

  /**
   * Have the rules of a plan in force: by what is otherwise than was loaded, or whole, over what is there, where that is
   * not known or turns out to be something else.
   */
  async apply(namespace: string, plan: RulesetPlan, options: Abortable): Promise<void> {
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

  /** Load the rules of a plan in place of our tables, whatever is in them, as one transaction. */
  async replace(namespace: string, plan: RulesetPlan, options: Abortable): Promise<void> {
    const wanted = rulesetOf(plan)
    this.forget()
    await loadRuleset(namespace, withoutTables + renderRuleset(wanted), options)
    this.#loaded = wanted
  }

  /** What the kernel lists of the rules of a plan when they are as they should be. */
  expected(plan: RulesetPlan, options: Abortable): Promise<Listing> {
    return this.#expected.of(renderRuleset(rulesetOf(plan)), options)
  }
}
