import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { makeResources, type Resources } from './fixtures.ts'
import { runSchedule, type Schedule, schedule } from './schedule.ts'

/** The schedules of one run of all tests, over the files that share them; `npm run test:long` has many more. */
const schedules = Number(process.env.BERTH_MODEL_SCHEDULES ?? 2000)

/** `seed` or `seed:path`, as a failure prints it; other schedules in each run unless it is given. */
const [given, path] = (process.env.BERTH_MODEL_REPLAY ?? '').split(':')
const seed = given ? Number(given) : Date.now() % 2 ** 31

/** The test of one of `files` files, which run side by side; a replay is left to the first. */
export function checkShare(file: number, files: number): void {
  let resources: Resources
  beforeAll(async () => {
    resources = await makeResources()
  })
  afterAll(() => resources.close())

  const share = Math.ceil(schedules / files)
  test.skipIf(path !== undefined && file > 0)(
    `every promise is kept over any schedule of calls, crashes and lost messages (part ${file + 1} of ${files})`,
    async () => {
      const property = fc.asyncProperty(schedule, (plan) => runSchedule(resources, plan))
      console.log(`${share} schedules of BERTH_MODEL_REPLAY=${seed}`)
      const result = await fc.check(property, {
        numRuns: path ? 1 : share,
        seed: seed + file,
        ...(path ? { path } : {}),
      })
      expect(result.failed ? story(result) : '').toBe('')
      if (path === undefined) expect(result.numRuns).toBe(share)
    },
    7_200_000,
  )
}

/** What broke, the shortest schedule that was found to break it, and how to run it again. */
function story(result: fc.RunDetails<[Schedule]>): string {
  const [plan] = result.counterexample ?? []
  return [
    result.errorInstance instanceof Error ? result.errorInstance.message : String(result.errorInstance),
    `${plan?.running} instances run, second host ${plan?.second}, serial output ${plan?.console ? 'passes' : 'does not pass'}; then`,
    ...(plan?.steps ?? []).map((step) => `  ${JSON.stringify(step)}`),
    `again: BERTH_MODEL_REPLAY=${result.seed}:${result.counterexamplePath} npx vitest run test/model/model.test.ts`,
  ].join('\n')
}
