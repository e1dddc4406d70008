import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { median } from '../figures.ts'
import { type Figure, ms, perSecond } from '../table.ts'
import type { Bench } from './bench.ts'
import { Child } from './child.ts'
import { type Fleet, startFleet, withProfile } from './fleet.ts'
import { jsonRequest, type LoadResult, runLoad } from './http-load.ts'
import { newInstances } from './seed.ts'

const connections = 32

/** How long the simulated hosts may take to start what was created in one round, milliseconds. */
const drainMs = 120_000

interface Round {
  creates: LoadResult
  commitsPerSecond: number
  /** Processor time of the server for each create with all that follows it, and of bare SQLite for each commit. */
  microseconds: { create: number; commit: number }
  /** From the last answer until every instance ran. */
  drainedMs: number
}

/**
 * Creates, with everything that follows them (placement, reports of the hosts, events), against bare SQLite that commits
 * the same rows one create at a time, on the same disk; in turn.
 */
export async function measureCreates(bench: Bench): Promise<Figure[]> {
  const fleet = await startFleet({
    directory: join(bench.directory, 'creates'),
    instances: bench.instances,
    hosts: bench.quick ? 12 : 40,
  })
  const commits = await Child.start('commits-process', { database: join(bench.directory, 'commits.db') })
  try {
    const durationMs = bench.quick ? 1500 : 3000
    const load = { connections, url: fleet.url, status: 201, next: createRequests(fleet.url) }
    await runLoad({ ...load, durationMs: 1000 }) // not counted
    await drained(fleet)
    const rounds: Round[] = []
    for (let round = 0; round < (bench.quick ? 3 : 5); round++) {
      const before = { commit: await commits.child.processorMs(), create: await fleet.server.processorMs() }
      const bare = await commits.child.ask<{ perSecond: number; commits: number }>('run', { durationMs })
      const commit = (1000 * ((await commits.child.processorMs()) - before.commit)) / bare.commits
      const { creates, drainedMs } = await withProfile(fleet.server, bench.profile && round === 0, async () => {
        return { creates: await runLoad({ ...load, durationMs }), drainedMs: await drained(fleet) }
      })
      const create = (1000 * ((await fleet.server.processorMs()) - before.create)) / creates.requests
      rounds.push({ creates, commitsPerSecond: bare.perSecond, drainedMs, microseconds: { create, commit } })
    }
    const failures = rounds.reduce((sum, round) => sum + round.creates.failures, 0)
    const ratio = median(rounds.map((round) => round.creates.perSecond / round.commitsPerSecond))
    const processor = {
      create: median(rounds.map(({ microseconds }) => microseconds.create)),
      commit: median(rounds.map(({ microseconds }) => microseconds.commit)),
    }
    const p99 = median(rounds.map((round) => round.creates.p99))
    return [
      {
        name: `creates, ${connections} connections, ${bench.instances} instances`,
        measured: perSecond(median(rounds.map((round) => round.creates.perSecond))),
        comparedWith: `${perSecond(median(rounds.map((round) => round.commitsPerSecond)))} single commits`,
        ratio,
        limit: '≥ 1.0',
        met: ratio >= 1 && failures === 0,
      },
      {
        name: 'creates, p99',
        measured: `${ms(p99)} (p50 ${ms(median(rounds.map((round) => round.creates.p50)))}, longest ${ms(Math.max(...rounds.map((round) => round.creates.longest)))})`,
        comparedWith: '',
        ratio: null,
        limit: '≤ 50 ms',
        met: p99 <= 50,
      },
      {
        name: 'creates, until the last one of a round runs',
        measured: `${ms(median(rounds.map((round) => round.drainedMs)))} for ${Math.round(median(rounds.map((round) => round.creates.requests)))}`,
        comparedWith: '',
        ratio: null,
        limit: 'none',
        met: true,
      },
      {
        name: 'creates, processor time of each with all that follows',
        measured: `${Math.round(processor.create)} µs`,
        comparedWith: `${Math.round(processor.commit)} µs a single commit`,
        ratio: processor.create / processor.commit,
        limit: 'none',
        met: true,
      },
    ]
  } finally {
    await commits.child.stop()
    await fleet.stop()
  }
}

/** Makes requests for instances in the subnet that no seeded one uses. */
export function createRequests(url: string): () => string {
  let n = 0
  return () => {
    const body = {
      metadata: { name: `web-${n++}`, labels: { env: 'production', team: 'platform', app: `app-${n % 100}` } },
      spec: {
        type: 'micro',
        image: 'ubuntu-22.04',
        vpc_id: newInstances.vpcId,
        subnet_id: newInstances.subnetId,
        security_groups: ['sg-web', 'sg-ssh'],
        ssh_key_ids: ['key-001'],
        user_data: 'IyEvYmluL2Jhc2gKYXB0IHVwZGF0ZQ==',
      },
    }
    return jsonRequest('POST', url, '/v1/instances', JSON.stringify(body))
  }
}

/** Wait until every instance runs; looks every 20 ms into the file. Gives how long that took. */
export async function drained(fleet: Fleet): Promise<number> {
  const startedAt = performance.now()
  const database = new SqliteDatabase(fleet.database, { readonly: true })
  try {
    const waiting = database.prepare("select count(*) as n from instances where state = 'provisioning'").pluck()
    while (performance.now() - startedAt < drainMs) {
      if (waiting.get() === 0) return performance.now() - startedAt
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    throw new Error(`${waiting.get()} instances did not start within ${drainMs / 1000} s`)
  } finally {
    database.close()
  }
}
