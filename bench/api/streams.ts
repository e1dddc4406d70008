import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { type Figure, mib, ms } from '../table.ts'
import type { Bench } from './bench.ts'
import { Child } from './child.ts'
import { startFleet, withProfile } from './fleet.ts'
import { getRequest, jsonRequest, runLoad } from './http-load.ts'
import type { StreamsReport } from './streams-process.ts'

const streams = 1000

/** A burst of changes with many event streams open, and the same burst before with none. */
export async function measureStreams(bench: Bench): Promise<Figure[]> {
  const fleet = await startFleet({ directory: join(bench.directory, 'streams'), instances: 1000 })
  const durationMs = bench.quick ? 1000 : 3000
  const memory = async () => (await fleet.server.ask<{ resident: number }>('memory')).resident
  const newest = () => {
    const database = new SqliteDatabase(fleet.database, { readonly: true })
    const last = database.prepare('select max(sequence) from events').pluck().get()
    database.close()
    return Number(last)
  }
  let n = 0
  const patch = () => {
    const id = fleet.ids[n++ % fleet.ids.length]
    const body = JSON.stringify({ metadata: { labels: { turn: String(n) } } })
    return jsonRequest('PATCH', fleet.url, `/v1/instances/${id}`, body)
  }
  const get = () => getRequest(fleet.url, `/v1/instances/${fleet.ids[Math.floor(Math.random() * 1000)]}`)
  // a steady rate of changes, the same in both runs: 8 clients with a pause
  const burst = async () => {
    const [changes, reads] = await Promise.all([
      runLoad({ url: fleet.url, connections: 8, durationMs, status: 200, next: patch, pauseMs: 25 }),
      runLoad({ url: fleet.url, connections: 4, durationMs, status: 200, next: get, pauseMs: 10 }),
    ])
    return { changes, reads, endedAt: Date.now() }
  }
  try {
    await burst() // not counted
    const alone = await burst()
    const before = await memory()
    const clients = await Child.start('streams-process', { url: fleet.url, streams })
    try {
      const opened = await memory()
      const first = newest() + 1
      const together = await withProfile(fleet.server, bench.profile, burst)
      const last = newest()
      const report = await clients.child.ask<StreamsReport>('received', { first, last })
      const failures = together.changes.failures + together.reads.failures
      const behindMs = Math.max(0, report.lastAt - together.endedAt)
      const after = await memory()
      return [
        {
          name: `${streams} event streams that have every event in order`,
          measured: `${report.whole} of ${streams}, ${last - first + 1} events each (${mib(report.bytes)})`,
          comparedWith: '',
          ratio: report.whole / streams,
          limit: '1.0',
          met: report.whole === streams && failures === 0,
        },
        {
          name: 'event streams, until the last has the last event',
          measured: `${ms(behindMs)} after the burst of ${Math.round(together.changes.perSecond)} changes/s`,
          comparedWith: `${Math.round(alone.changes.perSecond)} changes/s without streams`,
          ratio: together.changes.perSecond / alone.changes.perSecond,
          limit: '≤ 1000 ms',
          met: behindMs <= 1000,
        },
        {
          name: 'event streams, memory of each',
          measured: `${Math.round((opened - before) / streams / 1024)} KiB open, ${Math.round((after - before) / streams / 1024)} KiB after the burst`,
          comparedWith: '',
          ratio: null,
          limit: '≤ 256 KiB',
          met: (after - before) / streams <= 256 * 1024,
        },
        {
          name: 'GET during the burst with event streams, p99',
          measured: ms(together.reads.p99),
          comparedWith: `${ms(alone.reads.p99)} without streams`,
          ratio: together.reads.p99 / alone.reads.p99,
          limit: '≤ 50 ms or ≤ 1.5',
          met: together.reads.p99 <= 50 || together.reads.p99 <= 1.5 * alone.reads.p99,
        },
      ]
    } finally {
      await clients.child.stop()
    }
  } finally {
    await fleet.stop()
  }
}
