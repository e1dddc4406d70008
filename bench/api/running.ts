import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { median } from '../figures.ts'
import { type Figure, perSecond } from '../table.ts'
import type { Bench } from './bench.ts'
import { createRequests, drained } from './creates.ts'
import { type Fleet, startFleet } from './fleet.ts'
import { exchangeAll } from './http-load.ts'

const connections = 32

/** Creates before the first that is counted. */
const warmUps = 200

/** Creates of a round. */
const creates = 100

/** Instances that a host has before. */
const neighbours = [0, 100, 500] as const

/** Most that a create may cost among 500 neighbours, in times of what it costs among none. */
const limitRatio = 1.5

/** Creates until they run, on a host that has many instances and on one that has none, in turn. */
export async function measureRunning(bench: Bench): Promise<Figure[]> {
  const rounds: { count: number; perSecond: number; processorMs: number }[] = []
  for (let round = 0; round < (bench.quick ? 1 : 3); round++) {
    for (const count of neighbours) {
      const directory = join(bench.directory, `running-${round}-${count}`)
      const fleet = await startFleet({ directory, instances: 0, hosts: 1, ledgers: directory })
      try {
        await warmUp(fleet)
        if (count > 0) await createAll(fleet, count)
        const before = await processorMs(fleet)
        const tookMs = await createAll(fleet, creates)
        const used = (await processorMs(fleet)) - before
        rounds.push({ count, perSecond: (1000 * creates) / tookMs, processorMs: used / creates })
      } finally {
        await fleet.stop()
      }
    }
  }
  const of = (count: number, figure: 'perSecond' | 'processorMs') =>
    median(rounds.filter((round) => round.count === count).map((round) => round[figure]))
  return neighbours.map((count) => {
    const [used, alone] = [of(count, 'processorMs'), of(0, 'processorMs')]
    const ratio = used / alone
    return {
      name: `creates until they run, on a host with ${count}`,
      measured: `${perSecond(of(count, 'perSecond'))}, ${used.toFixed(1)} ms of processor time each`,
      comparedWith: count === 0 ? '' : `with none ${alone.toFixed(1)} ms`,
      ratio: count === 0 ? null : ratio,
      limit: count === 0 ? '' : `≤ ${limitRatio}`,
      met: ratio <= limitRatio,
    }
  })
}

/** Have both processes at their pace, and no instance left of that. */
async function warmUp(fleet: Fleet): Promise<void> {
  await createAll(fleet, warmUps)
  const database = new SqliteDatabase(fleet.database, { readonly: true })
  try {
    const ids = database.prepare<[], string>('select id from instances').pluck().all()
    const paths = ids.map((id) => `/v1/instances/${id}?grace_seconds=0`)
    await exchangeAll(
      fleet.url,
      connections,
      paths.map((path) => `DELETE ${path} HTTP/1.1\r\nhost: ${new URL(fleet.url).host}\r\n\r\n`),
    )
    const left = database.prepare("select count(*) from instances where state <> 'terminated'").pluck()
    for (const startedAt = performance.now(); left.get() !== 0; ) {
      if (performance.now() - startedAt > 120_000) throw new Error('what was made to warm up is not gone after 120 s')
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  } finally {
    database.close()
  }
}

/** Create so many and wait until they run; gives how long both took, milliseconds. */
async function createAll(fleet: Fleet, count: number): Promise<number> {
  const startedAt = performance.now()
  const next = createRequests(fleet.url)
  const statuses = await exchangeAll(fleet.url, connections, Array.from({ length: count }, next))
  if (statuses.some((status) => status !== 201))
    throw new Error(`creates were answered ${[...new Set(statuses)].join()}`)
  await drained(fleet)
  return performance.now() - startedAt
}

/** Of server and agent together: in `berth dev` they are one process. */
async function processorMs({ server, hosts }: Fleet): Promise<number> {
  return (await server.processorMs()) + ((await hosts?.processorMs()) ?? 0)
}
