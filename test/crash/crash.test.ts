import { expect, test } from 'vitest'
import { runCrashTest } from './run.ts'

/** The short form of `npm run test:crash`. */
test.each(['dev', 'apart'] as const)(
  'after SIGKILLs under load all that was acknowledged is there, and all ends (%s)',
  async (layout) => {
    const summary = await runCrashTest({
      layout,
      seed: Date.now() % 1_000_000,
      clients: 4,
      rounds: 2,
      durationMs: 60_000,
      say: () => {},
    })
    expect(summary.faults, `again: npm run test:crash -- --layout ${layout} --seed ${summary.seed}`).toEqual([])
    expect(summary.rounds).toBeGreaterThanOrEqual(2)
    expect(summary.instances).toBeGreaterThan(10)
    expect(summary.brokenConnections).toBeGreaterThan(0)
  },
  120_000,
)
