import { randomBytes } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { newId } from '@berth/contract/ids.ts'
import { Child } from './child.ts'
import { exchangeOnce, getRequest } from './http-load.ts'
import type { ProfileReport } from './profile.ts'
import { seedInstances } from './seed.ts'

/** A server in a process of its own on a database of its own, with running instances in it. */
export interface Fleet {
  url: string
  database: string
  server: Child
  /** The simulated hosts with their agents; null when there are none. */
  hosts: Child | null
  /** Ids of the seeded instances. */
  ids: readonly string[]
  /** From the start of the process until /readyz answered, milliseconds. */
  readyMs: number
  stop(): Promise<void>
}

export interface FleetOptions {
  directory: string
  instances: number
  /** Simulated hosts with an agent and with room for 1000 instances each; they run in another process. */
  hosts?: number
  /** Where the agents' ledgers are; in memory unless given. */
  ledgers?: string
}

/** Seed a database and start a server on it. */
export async function startFleet({ directory, instances, hosts = 0, ledgers }: FleetOptions): Promise<Fleet> {
  await mkdir(directory, { recursive: true })
  const database = join(directory, 'berth.db')
  const ids = await seedInstances(database, instances)
  const credentials = Array.from({ length: hosts }, () => ({
    hostId: newId('host', Date.now()),
    credential: randomBytes(32).toString('base64url'),
  }))
  const { server, url, readyMs } = await startServerProcess(database, credentials)
  if (hosts === 0) return { url, database, server, hosts: null, ids, readyMs, stop: () => server.stop() }
  const agents = await Child.start('hosts-process', { serverUrl: url, hosts: credentials, ledgers })
  return {
    url,
    database,
    server,
    hosts: agents.child,
    ids,
    readyMs,
    async stop() {
      await agents.child.stop()
      await server.stop()
    },
  }
}

/** Start a server on a database and wait until /readyz answers 200. */
export async function startServerProcess(database: string, hosts: readonly object[] = []) {
  const startedAt = performance.now()
  const { child, ready } = await Child.start<{ url: string }>('server-process', { database, hosts })
  const { status } = await exchangeOnce(ready.url, getRequest(ready.url, '/readyz'))
  if (status !== 200) throw new Error(`/readyz answered ${status}`)
  return { server: child, url: ready.url, readyMs: performance.now() - startedAt }
}

/** Run `work`; with `profiled`, print where the server's processor time went meanwhile. */
export async function withProfile<T>(server: Child, profiled: boolean, work: () => Promise<T>): Promise<T> {
  if (!profiled) return work()
  await server.ask('startProfile')
  const result = await work()
  const { totalMs, functions, parts } = await server.ask<ProfileReport>('stopProfile')
  for (const [title, times] of [['package or file', parts] as const, ['function', functions] as const]) {
    console.log(`\nserver's processor time by ${title}, of ${Math.round(totalMs)} ms:`)
    for (const { where, ms } of times) console.log(`${((ms / totalMs) * 100).toFixed(1).padStart(6)} %  ${where}`)
  }
  return result
}
