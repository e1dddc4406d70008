import { parseArgs } from 'node:util'
import type { Layout } from './installation.ts'
import { runCrashTest } from './run.ts'

/**
 * Kill real processes under load, and see that they keep what they promised:
 *
 *   npm run test:crash -- [--seconds 240] [--rounds N] [--clients 6] [--seed N] [--layout dev|apart]
 *
 * Without `--layout` half of the time goes to each.
 */
const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '240' },
    rounds: { type: 'string', default: '1000000' },
    clients: { type: 'string', default: '6' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    layout: { type: 'string', default: 'dev,apart' },
  },
})
const layouts = values.layout.split(',').filter((layout): layout is Layout => layout === 'dev' || layout === 'apart')
if (layouts.length === 0) throw new Error('--layout is dev or apart')
const started = performance.now()
let failed = false
for (const layout of layouts) {
  const summary = await runCrashTest({
    layout,
    seed: number('seed', values.seed),
    clients: number('clients', values.clients),
    rounds: Math.ceil(number('rounds', values.rounds) / layouts.length),
    durationMs: (number('seconds', values.seconds) * 1000) / layouts.length,
    say: (line) => console.log(line),
  })
  console.log(JSON.stringify({ ...summary, faults: summary.faults.length }, null, 2))
  for (const fault of summary.faults.slice(0, 20)) console.log(`FAULT: ${fault}`)
  if (summary.faults.length > 0) {
    failed = true
    console.log(`again: npm run test:crash -- --layout ${layout} --seed ${summary.seed}`)
  }
}
const seconds = ((performance.now() - started) / 1000).toFixed(0)
console.log(failed ? `FAILED after ${seconds} s` : `nothing was lost, torn or left in ${seconds} s`)
process.exitCode = failed ? 1 : 0

function number(name: string, text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} must be a whole number above 0`)
  return value
}
