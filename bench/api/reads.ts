import { mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import { median } from '../figures.ts'
import { type Figure, ms, perSecond } from '../table.ts'
import type { Bench } from './bench.ts'
import { Child } from './child.ts'
import { type Fleet, startFleet, withProfile } from './fleet.ts'
import { exchangeOnce, getRequest, type LoadResult, runLoad } from './http-load.ts'

const connections = 16

/**
 * GET by id against node:http that answers the same bytes; in turn. Of each instance for the first time, which is read
 * and rendered; then of any of them at random; then of 1000, as those who wait for something ask again and again.
 */
export async function measureGet(bench: Bench): Promise<Figure[]> {
  return [...(await measureGetAmong(bench, bench.instances)), ...(await measureGetAmong(bench, 1000))]
}

/** One run of each, in turn. */
interface Turn {
  berth: LoadResult
  bare: LoadResult
  /** Processor time of a request in each. */
  microseconds: { berth: number; bare: number }
}

async function measureGetAmong(bench: Bench, among: number): Promise<Figure[]> {
  const fleet = await startFleet({
    directory: await mkdtemp(join(bench.directory, 'get-')),
    instances: bench.instances,
  })
  const paths = fleet.ids.map((id) => getRequest(fleet.url, `/v1/instances/${id}`))
  const sample = await exchangeOnce(fleet.url, paths[0] ?? '')
  const bare = await Child.start<{ url: string }>('bare-process', bareAnswer(sample))
  const bareRequest = getRequest(bare.ready.url, `/v1/instances/${fleet.ids[0]}`)
  const load = { connections, durationMs: bench.quick ? 1000 : 3000, status: 200 }
  const inTurn = async (next: () => string): Promise<Turn> => {
    const before = { berth: await fleet.server.processorMs(), bare: await bare.child.processorMs() }
    const other = await runLoad({ ...load, url: bare.ready.url, next: () => bareRequest })
    const berth = await runLoad({ ...load, url: fleet.url, next })
    const microseconds = {
      berth: (1000 * ((await fleet.server.processorMs()) - before.berth)) / berth.requests,
      bare: (1000 * ((await bare.child.processorMs()) - before.bare)) / other.requests,
    }
    return { berth, bare: other, microseconds }
  }
  try {
    await runLoad({ ...load, durationMs: 1000, url: bare.ready.url, next: () => bareRequest }) // not counted
    const first: Turn[] = []
    let asked = 0
    while (asked < among) first.push(await inTurn(() => paths[asked++ % among] ?? ''))
    const again: Turn[] = []
    await withProfile(fleet.server, bench.profile, async () => {
      for (let round = 0; round < (bench.quick ? 3 : 7); round++) {
        again.push(await inTurn(() => paths[Math.floor(Math.random() * among)] ?? ''))
      }
    })
    return [
      ...(among === bench.instances ? getFigures(`first GET of each of ${among}`, first, null) : []),
      ...getFigures(`GET /v1/instances/{id} of any of ${among}`, again, 0.2),
    ]
  } finally {
    await bare.child.stop()
    await fleet.stop()
  }
}

function getFigures(name: string, turns: readonly Turn[], limit: number | null): Figure[] {
  const of = (value: (turn: Turn) => number) => median(turns.map(value))
  const ratio = of(({ berth, bare }) => berth.perSecond / bare.perSecond)
  const processor = { berth: of((turn) => turn.microseconds.berth), bare: of((turn) => turn.microseconds.bare) }
  const failures = turns.reduce((sum, { berth }) => sum + berth.failures, 0)
  const busy = Math.max(...turns.map(({ bare }) => bare.busy))
  return [
    {
      name,
      measured: perSecond(of(({ berth }) => berth.perSecond)),
      comparedWith: `${perSecond(of(({ bare }) => bare.perSecond))} node:http (load ${Math.round(busy * 100)} % busy)`,
      ratio,
      limit: limit === null ? 'none' : `≥ ${limit}`,
      met: (limit === null || ratio >= limit) && failures === 0,
    },
    {
      name: `${name}, processor time`,
      measured: `${Math.round(processor.berth)} µs`,
      comparedWith: `${Math.round(processor.bare)} µs node:http`,
      ratio: processor.bare / processor.berth,
      limit: 'none',
      met: true,
    },
  ]
}

/** What a bare server needs to answer the very same; `date` and `connection` come from node:http on both sides. */
function bareAnswer({ head, body }: { head: string; body: Buffer }) {
  const headers = head
    .split('\r\n')
    .slice(1)
    .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)] as const)
    .filter(([name]) => !['date', 'connection', 'keep-alive'].includes(name.toLowerCase()))
  return { headers: Object.fromEntries(headers), body: body.toString() }
}

/** Each finds at least 100 instances among 1000. */
const selectors = [
  'env=production',
  'env in (staging,dev)',
  'env=dev,team!=team-3',
  'env=production,team notin (team-1,team-2),app',
  `env!=dev,team in (${Array.from({ length: 20 }, (_, n) => `team-${n}`).join(',')})`,
]

/** A page of 100 with a label selector among many instances and among few; in turn. */
export async function measureList(bench: Bench): Promise<Figure[]> {
  const many = await startFleet({ directory: join(bench.directory, 'many'), instances: bench.instances })
  const few = await startFleet({ directory: join(bench.directory, 'few'), instances: 1000 })
  try {
    const load = { connections: 1, durationMs: bench.quick ? 1000 : 3000, status: 200 }
    const requests = (url: string) => {
      const all = selectors.map((selector) =>
        getRequest(url, `/v1/instances?limit=100&label_selector=${encodeURIComponent(selector)}`),
      )
      let n = 0
      return () => all[n++ % all.length] ?? ''
    }
    for (const fleet of [many, few]) {
      const sample = await exchangeOnce(fleet.url, requests(fleet.url)())
      if (JSON.parse(sample.body.toString()).items.length !== 100) throw new Error('a page has not 100 instances')
      await runLoad({ ...load, url: fleet.url, next: requests(fleet.url) }) // not counted
    }
    const runs: { many: LoadResult; few: LoadResult; microseconds: number }[] = []
    await withProfile(many.server, bench.profile, async () => {
      for (let round = 0; round < (bench.quick ? 3 : 7); round++) {
        const before = await many.server.processorMs()
        const ofMany = await runLoad({ ...load, url: many.url, next: requests(many.url) })
        const microseconds = (1000 * ((await many.server.processorMs()) - before)) / ofMany.requests
        const ofFew = await runLoad({ ...load, url: few.url, next: requests(few.url) })
        runs.push({ many: ofMany, few: ofFew, microseconds })
      }
    })
    const long = await measureLong(many, bench.quick ? 3 : 7, load)
    const failures = runs.reduce((sum, run) => sum + run.many.failures + run.few.failures, 0)
    const p99 = median(runs.map((run) => run.many.p99))
    const p99Few = median(runs.map((run) => run.few.p99))
    const ratio = median(runs.map((run) => run.many.p99 / run.few.p99))
    const middle = median(runs.map((run) => run.many.p50))
    return [
      {
        name: `list of 100 by labels, ${bench.instances} instances, p99`,
        measured: `${ms(p99)} (p50 ${ms(middle)})`,
        comparedWith: `${ms(p99Few)} among 1000`,
        ratio,
        limit: '≤ 10 ms and ≤ 2.0',
        met: p99 <= 10 && ratio <= 2 && failures === 0,
      },
      {
        name: 'processor time of such a list',
        measured: `${Math.round(median(runs.map((run) => run.microseconds)))} µs`,
        comparedWith: '',
        ratio: null,
        limit: 'none',
        met: true,
      },
      long,
    ]
  } finally {
    await few.stop()
    await many.stop()
  }
}

/** Pages of 500 without a condition, one client. */
async function measureLong(
  fleet: Fleet,
  rounds: number,
  load: { connections: number; durationMs: number; status: number },
): Promise<Figure> {
  const request = getRequest(fleet.url, '/v1/instances?limit=500')
  const sample = await exchangeOnce(fleet.url, request)
  if (JSON.parse(sample.body.toString()).items.length !== 500) throw new Error('a page has not 500 instances')
  const runs: LoadResult[] = []
  for (let round = 0; round < rounds; round++)
    runs.push(await runLoad({ ...load, url: fleet.url, next: () => request }))
  const middle = median(runs.map((run) => run.p50))
  return {
    name: 'list of 500, one client, p50',
    measured: `${ms(middle)} (p99 ${ms(median(runs.map((run) => run.p99)))})`,
    comparedWith: '',
    ratio: null,
    limit: '≤ 10 ms',
    met: middle <= 10 && runs.every((run) => run.failures === 0),
  }
}
