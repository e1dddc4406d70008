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

const sent = { keyed: false, lost: false }
const create = { call: 'create', type: 'micro', subnet: 'small', ...sent } satisfies Call
const made = (...calls: Call[]): Command => ({ do: 'call', calls, crash: 'none' })
const after = (running: number, ...steps: Command[]): Schedule => ({
  running,
  second: 'at once',
  console: false,
  steps,
})
const rename: Call = { call: 'patch', pick: 0, change: { metadata: { name: 'web' } }, match: 'current', lost: false }

/**
 * The shortest schedules that find planted defects which random ones meet once in hundreds (README.md): a run of all tests is to find each of them, not most.
 */
test.each<[defect: string, plan: Schedule]>([
  [
    'a key that never ends',
    after(
      0,
      made({ ...create, keyed: true }),
      { do: 'run', ms: 200 },
      { do: 'jump', clock: 'server', ms: 90_000_000 },
      made({ call: 'again', pick: 0, otherBody: true, lost: false }),
    ),
  ],
  [
    'a card that was asked for before takes its public address back',
    after(2, made(create), made(rename, { call: 'attach', ip: 2, pick: 0, lost: false }), {
      do: 'lose wakes',
      count: 1,
    }),
  ],
  [
    'the session of an agent comes from its clock alone',
    after(
      0,
      { do: 'crash agent', host: 1, saves: 0, downMs: 5 },
      { do: 'jump', clock: 1, ms: -90_000_000 },
      made({ call: 'start', pick: 0, ...sent }, create),
      { do: 'run', ms: 200 },
      made(rename),
    ),
  ],
  [
    'an agent takes a change of groups for a start',
    after(
      1,
      { do: 'guest off', pick: 0 },
      made({ call: 'patch', pick: 0, change: { spec: { security_groups: ['sg-web'] } }, match: 'none', lost: false }),
      { do: 'run', ms: 1500 },
    ),
  ],
  [
    'a report is taken under any generation',
    after(1, { do: 'guest off', pick: 0 }, { do: 'run', ms: 1 }, made({ call: 'start', pick: 0, ...sent }), {
      do: 'run',
      ms: 1,
    }),
  ],
  [
    'an address of a subnet is given out again without being marked',
    after(
      2,
      made({ call: 'delete', pick: 0, grace: 0 }),
      { do: 'run', ms: 6000 },
      made(create),
      made(create),
      { do: 'run', ms: 200 },
      made(create),
      { do: 'run', ms: 200 },
    ),
  ],
  [
    'a public address is released while it is attached',
    after(
      1,
      made({ call: 'allocate', pick: 0, lost: false }),
      { do: 'run', ms: 200 },
      made({ call: 'release', ip: 0, lost: false }),
      { do: 'run', ms: 200 },
    ),
  ],
])('there is no such defect as: %s', async (_defect, plan) => {
  await runSchedule(resources, plan)
})
