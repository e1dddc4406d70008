import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { listProcesses } from '@berth/agent/sys/process.ts'
import { databaseFaults, databaseLeftovers, duplicates, ledgerLeftovers, openOperations } from './database-checks.ts'
import { Installation, type Layout } from './installation.ts'
import { type Acknowledged, call, Record, runClient } from './load.ts'
import { Random } from './random.ts'

export interface CrashRun {
  layout: Layout
  seed: number
  clients: number
  /** Ends after so many kills or so many milliseconds, whichever comes first. */
  rounds: number
  durationMs: number
  /** Hears what happens, a line each. */
  say: (line: string) => void
}

export interface CrashSummary {
  layout: Layout
  seed: number
  rounds: number
  /** Kills of a server that was still starting; of the rest, how many took the agent's process along. */
  killedWhileStarting: number
  killedWithAgent: number
  instances: number
  operations: number
  deletes: number
  reads: number
  brokenConnections: number
  retriedCreates: number
  replayedCreates: number
  refusals: { [what: string]: number }
  errorLines: number
  /** Whether the server knows `Idempotency-Key`; without it a retried create may make two instances. */
  idempotent: boolean
  duplicates: number
  /** What must not be. Empty when all is well. */
  faults: string[]
}

/** Time for open work to end after the last kill, milliseconds. */
const settleMs = 90_000

/** Instances that are looked at through the API after each restart: the last ones, and any of those before. */
const lookedAt = { last: 60, earlier: 40 }

/**
 * Kill a server under load again and again and look after each time whether all it promised is there; at the end all
 * work must end, and after everything is deleted nothing may be left.
 */
export async function runCrashTest(run: CrashRun): Promise<CrashSummary> {
  const installation = await Installation.prepare(run.layout)
  const random = new Random(run.seed)
  const record = new Record()
  const faults: string[] = []
  const counts = { rounds: 0, killedWhileStarting: 0, killedWithAgent: 0 }
  const stopping = new AbortController()
  try {
    installation.start()
    await installation.serves()
    const idempotent = await knowsIdempotencyKeys(installation.url)
    if (!idempotent) run.say('!!!! the server does not know Idempotency-Key: duplicates of retries are NOT judged !!!!')
    const clients = Array.from({ length: run.clients }, (_, at) =>
      runClient(
        { name: `c${at}`, url: installation.url, random: new Random(run.seed + at + 1), signal: stopping.signal },
        record,
      ),
    )
    const deadline = performance.now() + run.durationMs
    while (counts.rounds < run.rounds && performance.now() < deadline && faults.length === 0) {
      const agentToo = random.chance(0.3)
      await delay(100 + random.number(1400))
      await kill(agentToo)
      while (random.chance(0.2)) {
        installation.start()
        await delay(random.number(800))
        counts.killedWhileStarting++
        await kill(agentToo)
      }
      installation.start()
      await installation.serves()
      faults.push(...(await apiFaults(installation.url, someOf(record.instances, random))))
      run.say(
        `${run.layout} kill ${counts.rounds}: ${record.instances.length} instances and ${record.operations.length} operations acknowledged, ${faults.length} faults`,
      )
    }
    stopping.abort()
    await Promise.all(clients)
    run.say('the clients have stopped; all work must end and nothing may be left')
    faults.push(...record.faults, ...(await apiFaults(installation.url, someOf(record.instances, random))))
    faults.push(...(await endFaults(installation)))
    await installation.stop()
    faults.push(...databaseFaults(installation.databaseFile, record.instances))
    const doubled = duplicates(installation.databaseFile)
    if (idempotent) faults.push(...doubled.map(({ name, count }) => `${count} instances from one create: ${name}`))
    for (const left of await listProcessesOf(installation.data)) faults.push(`process ${left} is left`)
    return {
      layout: run.layout,
      seed: run.seed,
      ...counts,
      instances: record.instances.length,
      operations: record.operations.length,
      deletes: record.instances.filter((instance) => instance.deleted).length,
      reads: record.reads,
      brokenConnections: record.brokenConnections,
      retriedCreates: record.retriedCreates,
      replayedCreates: record.replayedCreates,
      refusals: Object.fromEntries(record.refusals),
      errorLines: installation.server.errorLines + (installation.agent?.errorLines ?? 0),
      idempotent,
      duplicates: doubled.length,
      faults,
    }
  } finally {
    stopping.abort()
    await installation.kill(true)
    if (faults.length === 0) await installation.remove()
    else run.say(`the data directory is kept: ${installation.data}`)
  }

  async function kill(agentToo: boolean): Promise<void> {
    counts.rounds++
    if (agentToo && installation.agent !== null) counts.killedWithAgent++
    // what was acknowledged before the kill must be there after it; more may be
    await installation.kill(agentToo)
    const acknowledged = record.instances.map((instance) => ({ ...instance, operations: [...instance.operations] }))
    const copy = join(installation.data, 'berth.db-copy')
    await installation.copyDatabase(copy)
    faults.push(...databaseFaults(copy, acknowledged))
  }
}

async function knowsIdempotencyKeys(url: string): Promise<boolean> {
  const body = { metadata: { name: 'probe' }, spec: { type: 'micro', image: 'micro' } }
  const answers = [await call(url, 'POST', '/v1/instances', body, 'key-probe')]
  answers.push(await call(url, 'POST', '/v1/instances', body, 'key-probe'))
  for (const answer of answers) await call(url, 'DELETE', `/v1/instances/${answer?.body.id}`)
  return answers[1]?.replayed === true
}

/** All of them are looked up in the database (databaseFaults); the API is asked for some. */
function someOf(acknowledged: readonly Acknowledged[], random: Random): Acknowledged[] {
  if (acknowledged.length === 0) return []
  const earlier = Array.from({ length: lookedAt.earlier }, () => random.pick(acknowledged))
  return [...acknowledged.slice(-lookedAt.last), ...earlier]
}

/** Acknowledged writes that the API does not show. */
async function apiFaults(url: string, acknowledged: readonly Acknowledged[]): Promise<string[]> {
  const looks = acknowledged.map(async ({ id, operations }) => {
    const faults: string[] = []
    for (const path of [`/v1/instances/${id}`, ...operations.map((operation) => `/v1/operations/${operation}`)]) {
      const answer = await call(url, 'GET', path)
      if (answer?.status !== 200) faults.push(`GET ${path}: ${answer?.status ?? 'no answer'}`)
    }
    return faults
  })
  return (await Promise.all(looks)).flat()
}

/** Let all work end, delete everything, and see that nothing is left. */
async function endFaults(installation: Installation): Promise<string[]> {
  const { url, databaseFile, ledgerFile } = installation
  const open = await lastly(() => openOperations(databaseFile))
  for (;;) {
    const list = await call(url, 'GET', '/v1/instances')
    const items = (list?.body.items ?? []) as { id: string }[]
    if (items.length === 0) break
    for (const { id } of items) await call(url, 'DELETE', `/v1/instances/${id}?grace_seconds=0`)
    for (const { id } of items) {
      const gone = await call(url, 'GET', `/v1/instances/${id}?wait_for=terminated&timeout=25`)
      if (gone?.status !== 200) return [`${id} does not go: ${gone?.status ?? 'no answer'}`]
    }
  }
  return [
    ...open.map((line) => `this operation does not end: ${line}`),
    ...(await lastly(() => openOperations(databaseFile))).map((line) => `this operation does not end: ${line}`),
    ...(await lastly(() => databaseLeftovers(databaseFile))).map((line) => `left: ${line}`),
    ...(await lastly(() => ledgerLeftovers(ledgerFile))).map((line) => `left in the ledger: ${line}`),
    ...(await lastly(async () => (await installation.leftovers()) ?? [])).map((line) => `left on the host: ${line}`),
  ]
}

/** What is left of a list that should become empty in time. */
async function lastly(read: () => string[] | Promise<string[]>): Promise<string[]> {
  const deadline = performance.now() + settleMs
  for (;;) {
    const left = await read()
    if (left.length === 0 || performance.now() > deadline) return left
    await delay(100)
  }
}

async function listProcessesOf(data: string): Promise<number[]> {
  const dev = await listProcesses(['--data-dir', data])
  return dev.map((process) => process.pid)
}
