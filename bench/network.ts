import { parseArgs } from 'node:util'
import { measureAttach, measureFleet } from './network/attach.ts'
import { measureForwarding } from './network/forwarding.ts'
import { measureHealing } from './network/heal.ts'
import type { NetworkBench } from './network/measurement.ts'
import { measureMemory } from './network/memory.ts'
import { measureRules } from './network/rules.ts'
import { runSuite, type Suite, suiteOptions } from './suite.ts'

const help = `What the networks of a host take: cards attached and detached, rules changed, packets forwarded, by the agent's own code in
a network namespace that stands for a host. Needs root. Each figure is the median of runs in turn; times are compared with
that of a command which does nothing, packets with those of two namespaces that a veth pair joins.

  npm run bench:network -- [options]

  --only NAMES      of attach,fleet,memory,rules,heal,forwarding, with commas; all of them unless given
  --quick           short runs: good for a before and after, not for a figure
  --check           exit with 1 when a limit is missed
  --help            print this`

const suite: Suite<NetworkBench> = {
  help,
  measurements: {
    attach: measureAttach,
    fleet: measureFleet,
    memory: measureMemory,
    rules: measureRules,
    heal: measureHealing,
    forwarding: measureForwarding,
  },
}

const { values } = parseArgs({ options: suiteOptions(suite) })
const interrupted = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interrupted.abort()) // may come twice
await runSuite(suite, values, (measure) => measure({ quick: values.quick, signal: interrupted.signal }))
