import { afterAll, beforeAll, test } from 'vitest'
import type { Call } from './calls.ts'
import type { Command } from './commands.ts'
import { makeResources, type Resources } from './fixtures.ts'
import { runSchedule, type Schedule } from './schedule.ts'

let resources: Resources
beforeAll(async () => {
  resources = await makeResources()
})
afterAll(() => resources.close())

const delivery = { keyed: false, lost: false }
const made = (call: Call): Command => ({ do: 'call', calls: [call], crash: 'none' })

/** A start in the moment in which a guest has powered itself off, right after something else was changed. */
const startWhileOff = (change: Call): Schedule => ({
  running: 1,
  second: 'at once',
  console: false,
  steps: [
    { do: 'guest off', pick: 0 },
    made(change),
    { do: 'run', ms: 1 },
    made({ call: 'start', pick: 0, ...delivery }),
  ],
})

/** Schedules that random ones led to, and that must stay found. */
test.each<[what: string, plan: Schedule]>([
  [
    'a start of a guest that is off, after its groups were changed',
    startWhileOff({
      call: 'patch',
      pick: 0,
      change: { spec: { security_groups: ['sg-web'] } },
      match: 'none',
      lost: false,
    }),
  ],
  [
    'a start of a guest that is off, after its public address was released',
    startWhileOff({ call: 'release', ip: 0, lost: false }),
  ],
])('%s', async (_what, plan) => {
  await runSchedule(resources, plan)
})
