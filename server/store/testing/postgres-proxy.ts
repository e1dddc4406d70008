import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Stands between a server and PostgreSQL, can lose what PostgreSQL answers, and can fall silent. */
export interface PostgresProxy {
  /** The URL of a database by way of the proxy. */
  url(database: string): string
  /** Let the next COMMIT through, wait until PostgreSQL has answered it, and cut the connection instead, or let it be
   * silent from then on. Resolves then. */
  loseNextCommit(by?: 'cut' | 'silence'): Promise<void>
  /**
   * Pass nothing on any more, in either direction, not even that an end was closed: of the connections that are open, or
   * of all that will be made, too. They stay silent for ever.
   */
  fallSilent(connections: 'open' | 'all'): void
  /** New connections are passed on again. */
  speak(): void
  stop(): Promise<void>
}

/** Listen on a socket of its own and pass everything on to a database server's URL of any database. */
export async function startProxy(url: (database: string) => string): Promise<PostgresProxy> {
  const directory = mkdtempSync(join(tmpdir(), 'berth-px-'))
  const target = join(new URL(url('x')).searchParams.get('host') ?? '', '.s.PGSQL.5432')
  const open = new Set<Socket>()
  let armed: ((client: Socket, upstream: Socket) => void) | null = null
  let silent = false
  const server = createServer((client) => {
    const upstream = connect(target)
    let lose: typeof armed = null
    if (silent) client.pause()
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
      if (armed !== null && chunk.includes('commit\0')) {
        lose = armed
        armed = null
      }
      upstream.write(chunk)
    })
    upstream.on('data', (chunk) => {
      if (lose === null) return client.write(chunk)
      lose(client, upstream)
    })
  })
  server.listen(join(directory, '.s.PGSQL.5432'))
  await once(server, 'listening')
  return {
    url: (database) => `postgres://berth@localhost/${database}?host=${encodeURIComponent(directory)}`,
    loseNextCommit: (by = 'cut') =>
      new Promise((resolve) => {
        armed = (client, upstream) => {
          if (by === 'cut') client.destroy()
          else for (const socket of [client, upstream]) socket.pause()
          resolve()
        }
      }),
    fallSilent(connections) {
      silent = connections === 'all'
      for (const socket of open) socket.pause()
    },
    speak() {
      silent = false
    },
    async stop() {
      for (const socket of open) socket.destroy()
      server.close()
      await once(server, 'close')
      rmSync(directory, { recursive: true, force: true })
    },
  }
}
