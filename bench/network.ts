import { parseArgs } from 'node:util'
import { type Figure, renderTable } from './api/figure.ts'
import { measureAttach, measureFleet } from './network/attach.ts'
import { measureForwarding } from './network/forwarding.ts'
import { measureHealing } from './network/heal.ts'
import type { NetworkBench } from './network/measurement.ts'
import { measureRules } from './network/rules.ts'

const help = `What the networks of a host take: cards attached and detached, rules changed, packets forwarded, by the agent's own code in
a network namespace that stands for a host. Needs root. Each figure is the median of runs in turn; times are compared with
that of a command which does nothing, packets with those of two namespaces that a veth pair joins.

  npm run bench:network -- [options]

  --only NAMES      of attach,fleet,rules,heal,forwarding, with commas; all of them unless given
  --quick           short runs: good for a before and after, not for a figure
  --check           exit with 1 when a limit is missed
  --help            print this`

const measurements: Record<string, (bench: NetworkBench) => Promise<Figure[]>> = {
  attach: measureAttach,
  fleet: measureFleet,
  rules: measureRules,
  heal: measureHealing,
  forwarding: measureForwarding,
}

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: Object.keys(measurements).join(',') },
    quick: { type: 'boolean', default: false },
    check: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  console.log(help)
  process.exit(0)
}
const names = values.only.split(',')
const unknown = names.filter((name) => measurements[name] === undefined)
if (unknown.length > 0)
  throw new Error(`there is no ${unknown.join(', ')}; there are ${Object.keys(measurements).join(', ')}`)

const interrupted = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interrupted.abort()) // may come twice
const bench: NetworkBench = { quick: values.quick, signal: interrupted.signal }
const figures: Figure[] = []
for (const name of names) {
  console.error(`measuring ${name} …`)
  figures.push(...((await measurements[name]?.(bench)) ?? []))
}
console.log(renderTable(figures))
if (values.check && figures.some((figure) => !figure.met)) process.exitCode = 1
