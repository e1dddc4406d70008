import { type PolicyGroup, ruleFault } from '@berth/contract/networks/policy.ts'

/** Characters of what is said of the groups of a card. */
const longestDescription = 2000

const known = new WeakMap<PolicyGroup, readonly string[]>()

/** What is wrong with the rules of a group as they are written; they are looked at once for all cards that carry it. */
export function writtenFaults(group: PolicyGroup): readonly string[] {
  const faults =
    known.get(group) ??
    group.rules.flatMap((rule, index) => {
      const fault = ruleFault(rule)
      return fault === null ? [] : [`rule ${index}: ${fault}`]
    })
  known.set(group, faults)
  return faults
}

/** What keeps the groups that a card carries from being in force, by their ids, for people; null when they are. Pure. */
export function describeFaults(
  carried: readonly string[],
  groups: ReadonlyMap<string, PolicyGroup>,
  faultsOf: (group: PolicyGroup) => readonly string[],
): string | null {
  const described = carried.flatMap((id) => {
    const group = groups.get(id)
    const [first, ...others] = group === undefined ? [] : faultsOf(group)
    if (first === undefined) return []
    return [`${id} is not in force: ${first}${others.length === 0 ? '' : `, and ${others.length} more`}`]
  })
  return described.length === 0 ? null : described.join('; ').slice(0, longestDescription)
}
