/**
 * A small interpreter of nftables text: it reads what `renderRuleset` and `renderChange` give as nft would, and says what becomes of a packet
 * in the `inet vpc` table. It knows the statements that are in use and refuses every other, so that a new one is not
 * passed over. What depends on time and counts (`limit`, `ct count`) is within its bounds. Checksums and MTUs it leaves out.
 */

export interface Packet {
  iifname: string
  etherSource: string
  source: string
  destination: string
  /** IANA protocol number. */
  protocol: number
  sourcePort: number
  port: number
  /** Of an ICMP error: the address that the packet was sent to which it is about. */
  inner?: string
  /** What connection tracking says of it. */
  state: 'new' | 'established' | 'related' | 'invalid'
  direction: 'original' | 'reply'
}

/** What became of a packet: where it went, and with which addresses; null when it was dropped. */
export type Outcome = { oifname: string; source: string; destination: string } | null

interface BaseChain {
  hook: string
  priority: number
  policy: string
}

interface Table {
  sets: Map<string, Set<string>>
  maps: Map<string, Map<string, string>>
  chains: Map<string, { base: BaseChain | null; rules: string[] }>
}

type Verdict = 'accept' | 'drop' | 'continue'

/** A packet on its way, with what is known of it by now. */
type Travelling = Packet & { oifname: string; translated: boolean }

const protocols: Record<string, number> = { icmp: 1, tcp: 6, udp: 17 }
const priorities: Record<string, number> = { raw: -300, dstnat: -100, srcnat: 100 }

export class RulesetEvaluator {
  readonly #tables = new Map<string, Table>()

  /** Load text over what is there, as `nft -f` does. Throws for what it does not know and what the kernel would refuse. */
  load(text: string): void {
    const lines = text.split('\n').map((line) => line.trim())
    for (let at = 0; at < lines.length; at++) {
      const line = lines[at] ?? ''
      const opened = /^table (\w+ \w+) \{$/.exec(line)
      if (opened !== null) {
        const table = this.#declared(opened[1] ?? '')
        while (lines[++at] !== '}') at = loadObject(table, lines, at)
      } else if (line !== '') this.#command(line)
    }
  }

  /** All that was loaded, each list of elements sorted. */
  get contents(): object {
    const sorted = <T>(entries: Iterable<[string, T]>) => Object.fromEntries([...entries].sort())
    return sorted(
      [...this.#tables].map(([name, { sets, maps, chains }]) => [
        name,
        {
          sets: sorted([...sets].map(([set, elements]) => [set, [...elements].sort()])),
          maps: sorted([...maps].map(([map, elements]) => [map, sorted(elements)])),
          chains: sorted([...chains].map(([chain, { base, rules }]) => [chain, { base, rules: [...rules] }])),
        },
      ]),
    )
  }

  /** Send a packet through the namespace. `route` gives the interface that leads to an address. */
  forward(packet: Packet, route: (address: string) => string): Outcome {
    const table = this.#table('inet vpc')
    const travelling: Travelling = { ...packet, oifname: '', translated: false }
    if (!passesHook(table, 'prerouting', travelling)) return null
    travelling.oifname = route(travelling.destination)
    for (const hook of ['forward', 'postrouting']) if (!passesHook(table, hook, travelling)) return null
    const { oifname, source, destination } = travelling
    return { oifname, source, destination }
  }

  #declared(name: string): Table {
    const existing = this.#tables.get(name)
    if (existing !== undefined) return existing
    const table: Table = { sets: new Map(), maps: new Map(), chains: new Map() }
    this.#tables.set(name, table)
    return table
  }

  #table(name: string): Table {
    return must(this.#tables.get(name), `there is no table ${name}`)
  }

  #command(line: string): void {
    const flushed = /^flush table (\w+ \w+)$/.exec(line)
    if (flushed !== null) {
      for (const chain of this.#table(flushed[1] ?? '').chains.values()) chain.rules = []
      return
    }
    const [, verb = '', kind = '', tableName = '', name = '', , list = ''] =
      /^(flush|delete|add) (set|map|chain|element) (\w+ \w+) (\w+)( \{ (.*) \})?$/.exec(line) ?? refuse(line)
    const table = this.#table(tableName)
    if (verb === 'add' && kind === 'element') addElements(table, name, list)
    else if (verb === 'delete' && kind === 'element') deleteElements(table, name, list)
    else if (verb === 'flush' && kind === 'chain') must(table.chains.get(name), line).rules = []
    else if (verb === 'flush') must(table.sets.get(name) ?? table.maps.get(name), line).clear()
    else if (verb === 'delete' && kind === 'chain') deleteChain(table, name)
    else if (verb === 'delete' && kind === 'set') deleteSet(table, name)
    else refuse(line)
  }
}

/** Load the object whose declaration begins at a line; gives its last line. */
function loadObject(table: Table, lines: readonly string[], at: number): number {
  const line = lines[at] ?? ''
  const declared = /^(set|map) (\w+) \{ (?:type|typeof) [^;{}]+;.* \}$/.exec(line)
  const [, kind, name = ''] = declared ?? []
  if (kind === 'set') table.sets.set(name, table.sets.get(name) ?? new Set())
  else if (kind === 'map') table.maps.set(name, table.maps.get(name) ?? new Map())
  if (declared !== null) return at
  const empty = /^chain (\w+) \{ (?:type \w+ hook (\w+) priority (-?\w+); policy (\w+); )?\}$/.exec(line)
  if (empty !== null) {
    const [, name = '', hook, priority = '', policy = ''] = empty
    const base = hook === undefined ? null : { hook, priority: priorities[priority] ?? Number(priority), policy }
    if (!table.chains.has(name)) table.chains.set(name, { base, rules: [] })
    return at
  }
  const [, chainName = ''] = /^chain (\w+) \{$/.exec(line) ?? refuse(line)
  const { rules } = must(table.chains.get(chainName), line)
  let end = at + 1
  for (; lines[end] !== '}'; end++) rules.push(must(lines[end], line))
  return end
}

function addElements(table: Table, name: string, list: string): void {
  for (const element of list.split(', ')) {
    const [key = '', value] = element.split(' : ')
    const normal = key.replaceAll('"', '')
    if (value === undefined) must(table.sets.get(name), name).add(normal)
    else {
      const map = must(table.maps.get(name), name)
      if (map.has(normal) && map.get(normal) !== value) throw new Error(`${name} has another ${key}`) // EEXIST
      const chain = /^jump (\w+)$/.exec(value)?.[1]
      if (chain !== undefined) must(table.chains.get(chain), value)
      map.set(normal, value)
    }
  }
}

function deleteElements(table: Table, name: string, list: string): void {
  for (const element of list.split(', ')) {
    const [key = '', value] = element.split(' : ')
    const normal = key.replaceAll('"', '')
    const there = value === undefined ? table.sets.get(name)?.has(normal) : table.maps.get(name)?.get(normal) === value
    if (there !== true) throw new Error(`${name} has no ${element}`) // ENOENT
    if (value === undefined) table.sets.get(name)?.delete(normal)
    else table.maps.get(name)?.delete(normal)
  }
}

function deleteChain(table: Table, name: string): void {
  const { rules } = must(table.chains.get(name), name)
  if (rules.length > 0 || mentions(table, `jump ${name}`)) throw new Error(`${name} is in use`) // EBUSY
  table.chains.delete(name)
}

function deleteSet(table: Table, name: string): void {
  if (mentions(table, `@${name}`)) throw new Error(`${name} is in use`)
  if (!table.sets.delete(name)) throw new Error(`there is no set ${name}`)
}

function mentions(table: Table, what: string): boolean {
  const words = [...table.chains.values()].flatMap(({ rules }) => rules)
  return [...words, ...[...table.maps.values()].flatMap((map) => [...map.values()])].some((text) =>
    `${text} `.includes(`${what} `),
  )
}

/** Run the base chains of a hook in their order; a drop is final, an accept ends its own chain only. */
function passesHook(table: Table, hook: string, packet: Travelling): boolean {
  const chains = [...table.chains.values()].filter(({ base }) => base?.hook === hook)
  chains.sort((a, b) => (a.base?.priority ?? 0) - (b.base?.priority ?? 0))
  return chains.every(({ base, rules }) => {
    const verdict = runRules(table, rules, packet)
    return (verdict === 'continue' ? base?.policy : verdict) === 'accept'
  })
}

function runRules(table: Table, rules: readonly string[], packet: Travelling): Verdict {
  for (const rule of rules) {
    const verdict = runRule(table, rule, packet)
    if (verdict !== 'continue') return verdict
  }
  return 'continue'
}

/** Read a rule from the left; a match that fails ends it. */
function runRule(table: Table, rule: string, packet: Travelling): Verdict {
  for (let rest = rule; rest !== ''; ) {
    const found = statements.find(({ form }) => form.test(rest)) ?? refuse(rule)
    const match = must(found.form.exec(rest), rule)
    const outcome = found.run(table, packet, match)
    if (outcome === 'next rule') return 'continue'
    if (outcome !== 'next statement') return outcome
    rest = rest.slice(match[0].length).trimStart()
  }
  return 'continue'
}

interface Statement {
  form: RegExp
  run(table: Table, packet: Travelling, match: RegExpExecArray): Verdict | 'next statement' | 'next rule'
}

const when = (holds: boolean) => (holds ? 'next statement' : 'next rule')

/** The value that a word of a rule stands for; undefined where the packet has none. */
function fieldOf(packet: Travelling, field: string): string | undefined {
  switch (field) {
    case 'iifname':
      return packet.iifname
    case 'oifname':
      return packet.oifname
    case 'ether saddr':
      return packet.etherSource
    case 'ip saddr':
      return packet.source
    case 'ip daddr':
      return packet.destination
    default:
      return refuse(field)
  }
}

/** What a verdict map or a jump says to a packet. */
function follow(
  table: Table,
  verdict: string | undefined,
  packet: Travelling,
): Verdict | 'next statement' | 'next rule' {
  if (verdict === undefined) return 'next rule'
  const { rules } = must(table.chains.get(verdict.replace(/^jump /, '')), verdict)
  const outcome = runRules(table, rules, packet)
  return outcome === 'continue' ? 'next statement' : outcome
}

const field = '(?:iifname|oifname|ether saddr|ip saddr|ip daddr)'

const statements: readonly Statement[] = [
  { form: /^accept(?= |$)/, run: () => 'accept' },
  { form: /^drop(?= |$)/, run: () => 'drop' },
  {
    form: /^jump (\w+)(?: comment "[^"]*")?(?= |$)/,
    run: (table, packet, [, chain]) => follow(table, chain, packet),
  },
  {
    form: /^([io]ifname) vmap @(\w+)(?= |$)/,
    run: (table, packet, [, name = '', map = '']) =>
      follow(table, must(table.maps.get(map), map).get(fieldOf(packet, name) ?? ''), packet),
  },
  {
    form: /^([io]ifname) "(\w+)"(?= |$)/,
    run: (_table, packet, [, name = '', value]) => when(fieldOf(packet, name) === value),
  },
  {
    form: new RegExp(`^(${field}(?: \\. ${field})*) @(\\w+)(?= |$)`),
    run: (table, packet, [, fields = '', set = '']) => {
      const key = fields.split(' . ').map((name) => fieldOf(packet, name))
      return when(must(table.sets.get(set), set).has(key.join(' . ')))
    },
  },
  {
    form: /^(ip [sd]addr) ([0-9.]+)(?:\/(\d+))?(?= |$)/,
    run: (_table, packet, [, name = '', network = '', prefix = '32']) =>
      when(sharesPrefix(fieldOf(packet, name) ?? '', network, Number(prefix))),
  },
  {
    form: /^ct state ([a-z,]+)(?= |$)/,
    run: (_table, packet, [, states = '']) => when(states.split(',').includes(packet.state)),
  },
  { form: /^ct direction reply(?= |$)/, run: (_table, packet) => when(packet.direction === 'reply') },
  { form: /^ct status dnat(?= |$)/, run: (_table, packet) => when(packet.translated) },
  {
    form: /^meta l4proto (tcp|udp|icmp)(?= |$)/,
    run: (_table, packet, [, protocol = '']) => when(packet.protocol === protocols[protocol]),
  },
  {
    form: /^(tcp|udp) (sport|dport) (\d+)(?:-(\d+))?(?= |$)/,
    run: (_table, packet, [, protocol = '', side, from = '', to = from]) => {
      const port = side === 'sport' ? packet.sourcePort : packet.port
      return when(packet.protocol === protocols[protocol] && port >= Number(from) && port <= Number(to))
    },
  },
  {
    form: /^icmp type \{ 3, 4, 5, 11, 12 \} iifname \. @th,192,32 != @(\w+)(?= |$)/,
    run: (table, { iifname, inner }, [, set = '']) => {
      if (inner === undefined) return 'next rule'
      const hex = Buffer.from(inner.split('.').map(Number)).toString('hex')
      return when(!must(table.sets.get(set), set).has(`${iifname} . 0x${hex}`))
    },
  },
  { form: /^add @\w+ \{ ip [sd]addr ct count over \d+ \}(?= |$)/, run: () => 'next rule' },
  {
    form: /^update @\w+ \{ iifname limit rate over \d+ ?(?:bytes)?\/second burst \d+ (?:bytes|packets) \}(?= |$)/,
    run: () => 'next rule',
  },
  { form: /^tcp flags syn tcp option maxseg size set rt mtu$/, run: () => 'next rule' },
  {
    form: /^dnat ip to ip daddr map @(\w+)$/,
    run: (table, packet, [, map = '']) => {
      const target = must(table.maps.get(map), map).get(packet.destination)
      if (target === undefined) return 'next rule'
      Object.assign(packet, { destination: target, translated: true })
      return 'accept'
    },
  },
  {
    form: /^snat ip to ip saddr map @(\w+)$/,
    run: (table, packet, [, map = '']) => {
      const source = must(table.maps.get(map), map).get(packet.source)
      if (source === undefined) return 'next rule'
      packet.source = source
      return 'accept'
    },
  },
  {
    form: /^masquerade$/,
    run: (_table, packet) => {
      packet.source = 'masquerade'
      return 'accept'
    },
  },
]

function sharesPrefix(address: string, network: string, prefix: number): boolean {
  const bits = (text: string) =>
    text
      .split('.')
      .map((octet) => Number(octet).toString(2).padStart(8, '0'))
      .join('')
  return bits(address).slice(0, prefix) === bits(network).slice(0, prefix)
}

function refuse(text: string): never {
  throw new Error(`the evaluator does not know: ${text}`)
}

function must<T>(value: T | undefined | null, what: string): T {
  if (value === undefined || value === null) throw new Error(`missing: ${what}`)
  return value
}
