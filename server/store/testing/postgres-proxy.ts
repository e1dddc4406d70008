import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Stands between a server and PostgreSQL, and can lose what PostgreSQL answers. */
export interface PostgresProxy {
  /** The URL of a database by way of the proxy. */
  url(database: string): string
  /** Let the next COMMIT through, wait until PostgreSQL has answered it, and cut the connection instead. Resolves then. */
  loseNextCommit(): Promise<void>
  stop(): Promise<void>
}

/** Listen on a socket of its own and pass everything on to a database server's URL of any database. */
export async function startProxy(url: (database: string) => string): Promise<PostgresProxy> {
  const directory = mkdtempSync(join(tmpdir(), 'berth-px-'))
  const target = join(new URL(url('x')).searchParams.get('host') ?? '', '.s.PGSQL.5432')
  const open = new Set<Socket>()
  let armed: (() => void) | null = null
  const server = createServer((client) => {
    const upstream = connect(target)
    let lose: (() => void) | null = null
    for (const socket of [client, upstream]) {
      open.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => {
        open.delete(socket)
        client.destroy()
        upstream.destroy()
      })
    }
    client.on('data', (chunk) => {
      if (armed !== null && chunk.includes('commit')) {
        lose = armed
        armed = null
      }
      upstream.write(chunk)
    })
    upstream.on('data', (chunk) => {
      if (lose === null) return client.write(chunk)
      client.destroy()
      lose()
    })
  })
  server.listen(join(directory, '.s.PGSQL.5432'))
  await once(server, 'listening')
  return {
    url: (database) => `postgres://berth@localhost/${database}?host=${encodeURIComponent(directory)}`,
    loseNextCommit: () =>
      new Promise((resolve) => {
        armed = resolve
      }),
    async stop() {
      for (const socket of open) socket.destroy()
      server.close()
      await once(server, 'close')
      rmSync(directory, { recursive: true, force: true })
    },
  }
}
