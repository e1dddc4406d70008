import type { PolicyGroup, PolicyRule } from '@berth/contract/networks/policy.ts'

/** What says why rules are not loaded, null when they are. It changes nothing. */
export type Check = (groups: readonly PolicyGroup[]) => Promise<string | null>

/** Looks for refused rules in one search; what is not found by then is taken to be refused with the rest. */
const mostChecks = 64

/** What stands for a rule, wherever it stands. */
export function ruleKey(rule: PolicyRule): string {
  return JSON.stringify(rule)
}

/** Groups without some of their rules, given by their keys: what those would let pass does not. */
export function withoutRules(groups: readonly PolicyGroup[], keys: Pick<ReadonlySet<string>, 'has' | 'size'>) {
  if (keys.size === 0) return groups
  return groups.map(({ id, rules }): PolicyGroup => ({ id, rules: rules.filter((rule) => !keys.has(ruleKey(rule))) }))
}

/**
 * The rules that cannot be loaded, by their keys, with why: found by halves, so that one of thousands takes a dozen checks.
 * Empty when it is not for the rules that nothing can be loaded, or when each can be loaded without the others.
 */
export async function findRefusals(groups: readonly PolicyGroup[], check: Check): Promise<Map<string, string>> {
  const refused = new Map<string, string>()
  const keys = [...new Set(groups.flatMap(({ rules }) => rules.map(ruleKey)))]
  const checkOnly = (some: readonly string[]) => {
    const others = new Set(keys)
    for (const key of some) others.delete(key)
    return check(withoutRules(groups, others))
  }
  let checks = 0
  const search = async (suspects: readonly string[]): Promise<void> => {
    const why = await checkOnly(suspects)
    checks++
    if (why === null) return
    if (suspects.length === 1 || checks >= mostChecks) {
      for (const key of suspects) refused.set(key, why)
      return
    }
    const middle = Math.ceil(suspects.length / 2)
    await search(suspects.slice(0, middle))
    await search(suspects.slice(middle))
  }
  if (keys.length > 0 && (await checkOnly([])) === null) await search(keys)
  return refused
}
