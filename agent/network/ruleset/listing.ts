import { type Abortable, runCommand } from '../../sys/run-command.ts'

/** Most that a listing of a namespace may be: 1000 cards with 20 groups each make about 4 MiB of JSON. */
const maxListingBytes = 64 * 1024 * 1024

/**
 * A ruleset as the kernel holds it, in a form that can be compared: one line for each table, chain, set, map and element
 * with what it says, and the rules of each chain in their order. Elements of dynamic sets are left out: packets put them
 * there. Handles are, too: each load gives others.
 */
export interface Listing {
  /** What each line declares, by `table inet vpc` or `chain inet vpc input`. */
  definitions: ReadonlyMap<string, string>
  /** `element inet vpc bind …`. */
  elements: ReadonlySet<string>
  /** The rules of each chain, by `inet vpc input`. */
  rules: ReadonlyMap<string, readonly string[]>
}

/** What is otherwise than it should be, in counts and one example for people; null when nothing is. */
export interface ListingDifference {
  /** Something is there that should not be or is of another kind: loading over it does not mend that. */
  foreign: boolean
  detail: string
}

type Fields = Record<string, unknown>

/** Read what `nft --json list ruleset` prints, of the tables with this name. Pure. */
export function parseListing(json: string, table: string): Listing {
  const { nftables } = JSON.parse(json) as { nftables: Record<string, Fields>[] }
  const definitions = new Map<string, string>()
  const elements = new Set<string>()
  const rules = new Map<string, string[]>()
  for (const entry of nftables) {
    for (const [kind, object] of Object.entries(entry)) {
      if (kind === 'metainfo' || (kind === 'table' ? object.name : object.table) !== table) continue
      const { handle: _handle, elem, ...fields } = object
      if (kind === 'rule') {
        const chain = `${object.family} ${table} ${object.chain}`
        rules.set(chain, [...(rules.get(chain) ?? []), JSON.stringify([object.expr, object.comment ?? ''])])
        continue
      }
      const name = kind === 'table' ? `${object.family} ${table}` : `${object.family} ${table} ${object.name}`
      definitions.set(`${kind} ${name}`, JSON.stringify(fields))
      if (!Array.isArray(elem) || isDynamic(object)) continue
      for (const element of elem) elements.add(`element ${name} ${JSON.stringify(element)}`)
    }
  }
  return { definitions, elements, rules }
}

/** Whether packets put elements into a set: only those have a size here. */
function isDynamic({ size }: Fields): boolean {
  return size !== undefined
}

/** What of a listing is otherwise than in the one that is wanted. Pure. */
export function compareListings(wanted: Listing, seen: Listing): ListingDifference | null {
  const found: string[] = []
  let foreign = false
  for (const [name, definition] of wanted.definitions) {
    const there = seen.definitions.get(name)
    if (there === undefined) found.push(`${name} is missing`)
    else if (there !== definition) {
      found.push(`${name} is another`)
      foreign = true
    }
  }
  for (const name of seen.definitions.keys()) {
    if (wanted.definitions.has(name)) continue
    found.push(`${name} is not ours`)
    foreign = true
  }
  for (const element of wanted.elements) if (!seen.elements.has(element)) found.push(`${element} is missing`)
  for (const element of seen.elements) if (!wanted.elements.has(element)) found.push(`${element} is not ours`)
  for (const chain of new Set([...wanted.rules.keys(), ...seen.rules.keys()])) {
    const [want, have] = [wanted.rules.get(chain) ?? [], seen.rules.get(chain) ?? []]
    if (want.join('\n') !== have.join('\n')) found.push(`the rules of ${chain} are others`)
  }
  const [first, ...others] = found
  if (first === undefined) return null
  return { foreign, detail: others.length === 0 ? first : `${first}, and ${others.length} more` }
}

/** Chains, sets, maps and elements of a listing that the one that is wanted has not. Pure. */
export function foreignTo(wanted: Listing, seen: Listing): string[] {
  return [
    ...[...seen.definitions.keys()].filter((name) => !wanted.definitions.has(name)),
    ...[...seen.elements].filter((element) => !wanted.elements.has(element)),
  ]
}

/** The tables of this name in a network namespace, entered by `enter` (an argv; empty for the one we are in). */
export async function readListing(enter: readonly string[], table: string, options: Abortable): Promise<Listing> {
  const argv = [...enter, 'nft', '--json', 'list', 'ruleset']
  const { stdout } = await runCommand(argv, { ...options, maxOutputBytes: maxListingBytes })
  return parseListing(stdout, table)
}

/**
 * What a ruleset is once it is loaded: the kernel is asked, in a network namespace of its own that goes with the call.
 * So no second account of nft's language is needed, and nothing that somebody changed can pass for what is wanted.
 */
export async function expectedListing(ruleset: string, table: string, options: Abortable): Promise<Listing> {
  const { stdout } = await runCommand(['unshare', '--net', 'sh', '-c', 'nft -f - && exec nft --json list ruleset'], {
    ...options,
    input: ruleset,
    maxOutputBytes: maxListingBytes,
  })
  return parseListing(stdout, table)
}

/** Gives what rulesets are once they are loaded, and asks the kernel only for a text that is another than the last. */
export class ExpectedListing {
  readonly #table: string
  #ruleset: string | null = null
  #listing: Listing | null = null

  constructor(table: string) {
    this.#table = table
  }

  async of(ruleset: string, options: Abortable): Promise<Listing> {
    if (this.#listing !== null && this.#ruleset === ruleset) return this.#listing
    const listing = await expectedListing(ruleset, this.#table, options)
    this.#ruleset = ruleset
    this.#listing = listing
    return listing
  }
}
