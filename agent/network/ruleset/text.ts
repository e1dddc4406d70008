import type { Ruleset } from './ruleset.ts'

/** Chains and sets of a ruleset whose names depend on cards, groups and bandwidths. */
export interface RulesetNames {
  chains: ReadonlySet<string>
  sets: ReadonlySet<string>
}

/** The names of a ruleset. Pure. */
export function namesOf({ chains, sets }: Ruleset): RulesetNames {
  return { chains: new Set(chains.keys()), sets: new Set(sets.keys()) }
}

/** Whether a chain or set of a namespace is one of those whose names depend on the plan. */
export function isPlanned(name: string): boolean {
  return /^(?:in_|out_|sgi_|sgo_|sgm_|rate_|spent_)/.test(name)
}

const noNames: RulesetNames = { chains: new Set(), sets: new Set() }

/** Removes both tables, whether they are there or not. Before a ruleset in one transaction it clears what is not ours. */
export const withoutTables = ['arp', 'inet']
  .map((family) => `table ${family} vpc {\n}\ndelete table ${family} vpc\n`)
  .join('')

/**
 * A whole ruleset as nft text, to be loaded as one transaction whatever is there: sets and chains are declared (which
 * keeps those that exist), emptied and filled again, so no packet is lost and a failing load changes nothing. `stale`
 * names what is there and perhaps not in this ruleset, which goes in the same transaction. Pure.
 */
export function renderRuleset(ruleset: Ruleset, stale: RulesetNames = noNames): string {
  const { declarations, base, sets, chains, elements } = ruleset
  const filled = [...elements.keys()]
  return lines([
    declarations,
    ...declare(sets, chains.keys()),
    'flush table arp vpc',
    'flush table inet vpc',
    ...filled.map((set) => `flush ${isMap(set) ? 'map' : 'set'} ${set}`),
    ...[...stale.chains].filter((chain) => !chains.has(chain)).map((chain) => `delete chain inet vpc ${chain}`),
    ...[...stale.sets].filter((set) => !sets.has(set)).map((set) => `delete set inet vpc ${set}`),
    base,
    ...fillChains(chains),
    ...filled.flatMap((set) => changeElements('add', set, elements.get(set) ?? [])),
  ])
}

/**
 * What makes one ruleset of another that is loaded, as nft text, to be loaded as one transaction: what both have is left
 * alone, so that a card costs the same among two and among a thousand. Empty when nothing is to be done. It fails, and
 * changes nothing, where something that it takes away is not there. Pure.
 */
export function renderChange(loaded: Ruleset, wanted: Ruleset): string {
  if (loaded.declarations !== wanted.declarations || loaded.base !== wanted.base) {
    return renderRuleset(wanted, namesOf(loaded))
  }
  const freshSets = without(wanted.sets, loaded.sets)
  const freshChains = without(wanted.chains, loaded.chains)
  const goneChains = without(loaded.chains, wanted.chains)
  const otherChains = [...wanted.chains].filter(([name, rules]) => {
    const before = loaded.chains.get(name)
    return before !== undefined && before.join('\n') !== rules.join('\n')
  })
  return lines([
    ...declare(freshSets, freshChains.keys()),
    ...[...goneChains.keys(), ...otherChains.map(([name]) => name)].map((chain) => `flush chain inet vpc ${chain}`),
    ...elementsThatGo(loaded, wanted),
    ...[...goneChains.keys()].map((chain) => `delete chain inet vpc ${chain}`),
    ...[...without(loaded.sets, wanted.sets).keys()].map((set) => `delete set inet vpc ${set}`),
    ...fillChains(new Map([...freshChains, ...otherChains])),
    ...elementsThatCome(loaded, wanted),
  ])
}

const maps: ReadonlySet<string> = new Set(['vm_in', 'vm_out', 'rates', 'public_in', 'public_out'])

/** Of a set or map by its family, table and name. */
function isMap(set: string): boolean {
  return maps.has(set.slice(set.lastIndexOf(' ') + 1))
}

/** Sets that go altogether are not emptied: their elements go with them. */
function elementsThatGo(loaded: Ruleset, wanted: Ruleset): string[] {
  return [...loaded.elements].flatMap(([set, elements]) => {
    const kept = wanted.elements.get(set)
    return kept === undefined ? [] : changeElements('delete', set, difference(elements, kept))
  })
}

function elementsThatCome(loaded: Ruleset, wanted: Ruleset): string[] {
  return [...wanted.elements].flatMap(([set, elements]) =>
    changeElements('add', set, difference(elements, loaded.elements.get(set) ?? [])),
  )
}

function changeElements(verb: 'add' | 'delete', set: string, elements: readonly string[]): string[] {
  return elements.length === 0 ? [] : [`${verb} element ${set} { ${elements.join(', ')} }`]
}

function declare(sets: ReadonlyMap<string, string>, chains: Iterable<string>): string[] {
  return table([
    ...[...sets].map(([name, declaration]) => `  set ${name} { ${declaration} }\n`),
    ...[...chains].map((name) => `  chain ${name} { }\n`),
  ])
}

function fillChains(chains: ReadonlyMap<string, readonly string[]>): string[] {
  return table(
    [...chains].map(([name, rules]) => `  chain ${name} {\n${rules.map((rule) => `    ${rule}\n`).join('')}  }\n`),
  )
}

function table(objects: readonly string[]): string[] {
  return objects.length === 0 ? [] : [`table inet vpc {\n${objects.join('')}}`]
}

function lines(parts: readonly string[]): string {
  return parts.map((part) => `${part}\n`).join('')
}

function without<T>(map: ReadonlyMap<string, T>, other: ReadonlyMap<string, unknown>): Map<string, T> {
  return new Map([...map].filter(([name]) => !other.has(name)))
}

function difference(list: readonly string[], other: readonly string[]): string[] {
  const rest = new Set(other)
  return list.filter((each) => !rest.has(each))
}
